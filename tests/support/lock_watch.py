"""In which order transactions lock tables: asked of PostgreSQL after every statement."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine

# What a lock on rows, or the writing of one, takes on the table. Rows of these three are read by
# foreign keys alone (FOR KEY SHARE): that waits for nobody who writes them.
_LOCKED: Final = """
SELECT c.relname FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
 WHERE l.pid = pg_backend_pid() AND c.relkind = 'r' AND l.granted
   AND c.relnamespace = 'public'::regnamespace
   AND (l.mode = 'RowExclusiveLock'
        OR l.mode = 'RowShareLock' AND c.relname NOT IN ('accounts', 'endpoints', 'merchants'))"""

Step = frozenset[str]
"""The tables that one statement was the first of its transaction to lock."""


@dataclass
class LockWatch:
    """The transactions of some pools that were committed.

    Attributes:
        seen: each way to lock tables, with the statement that took each step.
    """

    seen: dict[tuple[Step, ...], list[str]] = field(default_factory=dict)

    @contextmanager
    def on(self, *engines: AsyncEngine) -> Iterator[None]:
        """Watch within the block."""
        hooks: dict[str, Callable[..., Any]] = {
            "begin": self._begin,
            "after_cursor_execute": self._look,
            "commit": self._commit,
        }
        targets = [engine.sync_engine for engine in engines]
        for target in targets:
            for name, hook in hooks.items():
                event.listen(target, name, hook)
        try:
            yield
        finally:
            for target in targets:
                for name, hook in hooks.items():
                    event.remove(target, name, hook)

    def _begin(self, conn: Connection) -> None:
        conn.info["steps"] = []

    def _look(self, conn: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        asking = conn.connection.cursor()
        asking.execute(_LOCKED)
        steps: list[tuple[Step, str]] = conn.info["steps"]
        known = frozenset[str]().union(*[step for step, _ in steps])
        if new := {name for (name,) in asking.fetchall()} - known:
            steps.append((frozenset(new), statement))
        asking.close()

    def _commit(self, conn: Connection) -> None:
        steps: list[tuple[Step, str]] = conn.info["steps"]
        if steps:
            self.seen[tuple(step for step, _ in steps)] = [statement for _, statement in steps]

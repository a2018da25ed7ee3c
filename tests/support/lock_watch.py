"""In which order transactions lock tables: asked of PostgreSQL after every statement."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
import pytest
from psycopg.rows import tuple_row
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
    _open: dict[object, list[tuple[Step, str]]] = field(default_factory=dict)  # by connection

    @contextmanager
    def on(self, *engines: AsyncEngine) -> Iterator[None]:
        """Watch within the block."""
        hooks: dict[str, Callable[..., Any]] = {"begin": self._begin, "commit": self._commit}
        targets = [engine.sync_engine for engine in engines]
        for target in targets:
            for name, hook in hooks.items():
                event.listen(target, name, hook)
        try:
            with pytest.MonkeyPatch.context() as patch:
                looking = self._looking(psycopg.AsyncCursor.execute)
                patch.setattr(psycopg.AsyncCursor, "execute", looking)
                yield
        finally:
            for target in targets:
                for name, hook in hooks.items():
                    event.remove(target, name, hook)

    def _begin(self, conn: Connection) -> None:
        self._open[conn.connection.driver_connection] = []

    def _looking(self, execute: Any) -> Any:
        """Look behind each statement, where all of them pass."""

        async def looking(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
            done = await execute(cursor, query, *args, **kwargs)
            steps = self._open.get(cursor.connection)
            if steps is not None:
                asking = cursor.connection.cursor(row_factory=tuple_row)
                await execute(asking, _LOCKED)
                known = frozenset[str]().union(*[step for step, _ in steps])
                if new := {name for (name,) in await asking.fetchall()} - known:
                    steps.append((frozenset(new), str(query)))
            return done

        return looking

    def _commit(self, conn: Connection) -> None:
        if steps := self._open.pop(conn.connection.driver_connection):
            self.seen[tuple(step for step, _ in steps)] = [statement for _, statement in steps]

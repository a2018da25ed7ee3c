"""The statements that paywatch sends, seen where all of them pass: psycopg's own cursors."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

Note = Callable[[str, Mapping[str, Any]], None]


@contextmanager
def watched_statements(note: Note = lambda _sql, _values: None) -> Iterator[list[str]]:
    """Collect each statement of an asynchronous connection of this process; `note` sees it first.

    BEGIN and COMMIT are none: psycopg sends them by itself.
    """
    statements: list[str] = []
    execute = psycopg.AsyncCursor.execute

    async def noted(cursor: Any, query: Any, params: Any = None, **more: Any) -> Any:
        note(str(query), params or {})
        statements.append(str(query))
        return await execute(cursor, query, params, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.AsyncCursor, "execute", noted)
        yield statements


async def statements_of(work: Callable[[], Awaitable[object]]) -> int:
    """Count the statements that something sends."""
    with watched_statements() as statements:
        await work()
    return len(statements)

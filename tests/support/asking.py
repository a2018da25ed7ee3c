"""A trial's own connection to the database, which is had anew when it is lost."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, LiteralString, Self

import psycopg

TRIES: Final = 60
PAUSE_S: Final = 0.5  # a server that recovers from a crash takes some seconds


class Asking:
    """Asks a database in autocommit; a context manager.

    Attributes:
        lost: how often the connection was.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._conn: psycopg.AsyncConnection[Any] | None = None
        self.lost = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._conn is not None:
            await self._conn.close()

    async def rows(self, statement: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement, once more if the server was not there or is just being recovered."""
        for _ in range(TRIES):
            try:
                if self._conn is None or self._conn.closed:
                    self._conn = await psycopg.AsyncConnection.connect(
                        self._url, autocommit=True, connect_timeout=10
                    )
                cursor = await self._conn.execute(statement, values)
                return list(await cursor.fetchall()) if cursor.description else []
            except psycopg.OperationalError:
                self.lost += 1
                await asyncio.sleep(PAUSE_S)
        raise AssertionError("the database does not come back")

    async def row(self, statement: LiteralString, *values: object) -> Sequence[Any]:
        """Give the only row."""
        [row] = await self.rows(statement, *values)
        return row

"""Statements that are sent one after the other, each made ready while the one before is at work.

PostgreSQL has its own processor: what a batch's rows cost here, it need not wait for.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import TextClause
from sqlalchemy.ext.asyncio import AsyncConnection

from paywatch.errors import StoreError
from paywatch.store import driver


@dataclass(frozen=True, slots=True)
class Write:
    """One statement with its parameters. Nothing is written before it is sent.

    Attributes:
        rows: how many it must write; None if that is for the statement to say.
    """

    statement: TextClause
    parameters: Mapping[str, object]
    rows: int | None = None


async def send(conn: AsyncConnection, write: Write) -> None:
    """Send one.

    Raises:
        StoreError: it did not write the rows that it must.
    """
    written = (await driver.execute(conn, write.statement, write.parameters)).rowcount
    if write.rows is not None and written != write.rows:
        raise StoreError(f"{written} of {write.rows} rows could be written")


async def in_turn(conn: AsyncConnection, writes: Iterable[Write]) -> None:
    """Send each when the one before is done; meanwhile the next is taken from `writes`.

    Raises:
        StoreError: as `send`; what comes behind is not sent.
    """
    turn = iter(writes)
    write = next(turn, None)
    while write is not None:
        sent = asyncio.ensure_future(send(conn, write))
        try:
            await asyncio.sleep(0)  # it starts, and goes as far as waiting for the server
            write = next(turn, None)
        except BaseException:
            sent.cancel()
            await asyncio.gather(sent, return_exceptions=True)
            raise
        await sent

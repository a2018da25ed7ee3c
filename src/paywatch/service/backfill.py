"""Backfill: read a range of the past again, by the same settling and with a cursor of its own.

Killed at any record it goes on from there: the cursor moves in the transactions that settle.
Credits that are known already change nothing.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from random import Random
from typing import Final, Protocol, TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from paywatch.domain.ledger import Batch, Position
from paywatch.errors import (
    CursorMoved,
    HistoryGap,
    HorizonUnavailable,
    NetworkReset,
    NotFound,
)
from paywatch.service.ahead import read_ahead
from paywatch.service.settle import Order, Settler
from paywatch.store import cursors
from paywatch.store.cursors import Cursor, backfill_stream
from paywatch.store.retry import in_transaction

BEHIND: Final = "behind"  # why Horizon does not show a range's end yet

log = structlog.stdlib.get_logger(__name__)
T = TypeVar("T")


class PageSource(Protocol):
    """Reads an account's past operations."""

    async def page(self, account: str, after: Position) -> Batch:
        """Read at most 200 operations after a position; `read` is 0 at the end of the ledger."""
        ...


@dataclass(frozen=True, slots=True)
class BackfillReport:
    """What one backfill did in this run."""

    account: str
    began_at: Position
    ended_at: Position
    read: int  # operations; those of the last page beyond the end count, too
    found: int  # credits that were not known


@dataclass(frozen=True)
class Backfill:
    """Backfills accounts, one range at a time."""

    engine: AsyncEngine
    settler: Settler
    source: PageSource
    clock: Callable[[], datetime]
    rng: Random

    async def run_range(self, account: str, after: Position, upto: Position) -> BackfillReport:
        """Read from `after` (exclusive) to `upto` (inclusive), or on from where it was killed.

        Raises:
            CursorMoved: another process has taken this backfill over.
            HorizonUnavailable: Horizon could not be read, or is not at `upto` yet; run it again, it
                goes on from there.
        """
        stream = backfill_stream(account, after)
        cursor = Cursor(stream, account, after, end_position=max(after, upto))

        async def begin(conn: AsyncConnection) -> Cursor | None:
            await cursors.open_stream(conn, cursor, self.clock())
            return await cursors.claim(conn, stream, self.clock())

        return await self._finish(await self._claimed(stream, begin))

    async def resume_all(self) -> list[BackfillReport]:
        """Finish what was begun and killed, but for what another process finishes meanwhile.

        One that cannot go on, for its ledgers are not there yet or not kept any more, does not hold
        up the others.

        Raises:
            HorizonUnavailable: as `run_range`, when the others have had their turn.
        """
        unfinished = await self._in_transaction(cursors.read_unfinished)
        reports: list[BackfillReport] = []
        waiting: HorizonUnavailable | None = None
        for cursor in unfinished:
            try:
                reports.append(await self.resume(cursor.stream))
            except (CursorMoved, NotFound) as error:
                log.warning("backfill_left", stream=cursor.stream, why=str(error))
            except HorizonUnavailable as error:
                waiting = error
            except (HistoryGap, NetworkReset) as error:
                # It stays, until a Horizon with longer history is asked.
                log.error("backfill_stopped", stream=cursor.stream, why=str(error))  # noqa: TRY400 # no bug of ours to trace
        if waiting is not None:
            raise waiting
        return reports

    async def resume(self, stream: str) -> BackfillReport:
        """Go on with a backfill from its cursor to its end.

        Raises:
            NotFound: it has ended, or never was.
            CursorMoved, HorizonUnavailable: as `run_range`.
        """
        claimed = await self._claimed(
            stream, lambda conn: cursors.claim(conn, stream, self.clock())
        )
        return await self._finish(claimed)

    async def _claimed(
        self, stream: str, take: Callable[[AsyncConnection], Awaitable[Cursor | None]]
    ) -> Cursor:
        claim = await self._in_transaction(take)
        if claim is None or claim.end_position is None:
            raise NotFound(f"there is no backfill {stream}: it has ended")
        return claim

    async def _finish(self, claim: Cursor) -> BackfillReport:
        """Settle page after page up to the end, reading one ahead, then forget the cursor."""
        began_at, read, found = claim.position, 0, 0
        async with aclosing(read_ahead(self._batches(claim), asyncio.Event())) as batches:
            async for batch in batches:
                settled = await self.settler.settle(Order(batch, by=claim.stream, claim=claim))
                read, found = read + batch.read, found + len(settled.outcomes)
                claim = replace(claim, position=batch.upto)
                progress = {"position": claim.position, "read": read, "found": found}
                log.info("backfill", stream=claim.stream, **progress)
        await self._in_transaction(lambda conn: cursors.close_backfill(conn, claim))
        return BackfillReport(claim.label, began_at, claim.position, read, found)

    async def _batches(self, claim: Cursor) -> AsyncGenerator[Batch, None]:
        """Read page after page up to the backfill's end, the last one cut off there.

        Raises:
            HorizonUnavailable: there is nothing more, and the end is not reached.
        """
        end, position = claim.end_position or claim.position, claim.position
        while position != end:
            batch = _within(await self.source.page(claim.label, position), end)
            yield batch
            position = batch.upto
            if batch.read == 0 and position != end:
                # Whether there is more, only Horizon's later ledgers will say.
                raise HorizonUnavailable(BEHIND, _nothing_more(replace(claim, position=position)))

    async def _in_transaction(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        return await in_transaction(self.engine, work, rng=self.rng)


def _within(batch: Batch, end: Position) -> Batch:
    if batch.upto <= end:
        return batch
    records = tuple(record for record in batch.records if record.operation_id <= end)
    return replace(batch, records=records, upto=end, closed_at=None)


def _nothing_more(claim: Cursor) -> str:
    end = claim.end_position or claim.position
    return (
        f"it has nothing of {claim.account} after ledger {claim.position.ledger}, and ledger "
        f"{end.ledger} is to be read: it is behind, or the account is not on the ledger yet"
    )

"""Trace: look an announced transaction up, settle what it pays, and end the waiting for it."""

from collections.abc import Awaitable, Callable, Container, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from random import Random
from typing import Protocol, TypeVar
from uuid import UUID

from sqlalchemy.engine.interfaces import IsolationLevel
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from paywatch.domain.announcement import Announcement, Trace
from paywatch.domain.checkout import Cause
from paywatch.domain.ledger import Batch, LedgerRecord, Position
from paywatch.service.settle import Order, Settled, Settler
from paywatch.store import announcements, merchants
from paywatch.store.retry import in_transaction

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Watched:
    """Each watched account with where watching it began, in the present history."""

    since: Mapping[str, Position]
    history: int


class TraceSource(Protocol):
    """Looks transactions up."""

    async def trace(self, tx_hash: str, watched: Container[str]) -> Trace:
        """Say how a transaction ended, and what it credits to watched accounts.

        All of it is of one instance, whose tip was read before the look-up.
        """
        ...


@dataclass(frozen=True)
class Tracer:
    """Looks up what payers announced.

    Attributes:
        by: on whose behalf, for the log of transitions.
        at_work: called before each wait for a database that is away.
    """

    engine: AsyncEngine
    settler: Settler
    source: TraceSource
    clock: Callable[[], datetime]
    rng: Random
    by: str
    at_work: Callable[[], None] = lambda: None

    async def watched(self) -> Watched:
        """Read the watched accounts."""
        accounts = await self.with_conn(merchants.read_accounts, "READ COMMITTED")
        since = {one.account: one.start_position for one in accounts}
        return Watched(since, await self.settler.history())

    async def look_up(self, tx_hash: str, watched: Watched, account: str) -> tuple[Trace, Settled]:
        """Look a transaction up and settle all that it credits, for whichever sessions.

        What cannot be read is the stream's business, and so is what came before the watching.

        Args:
            tx_hash: hex.
            watched: the accounts that matter.
            account: of the session that waits for it; names who settles.

        Raises:
            HorizonError: Horizon could not be asked.
        """
        trace = await self.source.trace(tx_hash, watched.since)
        batch = _batch(trace, watched.since)
        if batch is None:
            return trace, Settled()
        order = Order(batch, by=f"{self.by}:{account}", history=watched.history)
        return trace, await self.settler.settle(order, self.at_work)

    async def end(self, endings: Mapping[UUID, tuple[Announcement, Cause]]) -> dict[UUID, Cause]:
        """Send sessions back to `pending` that still wait for these transactions."""
        if not endings:
            return {}
        now = self.clock()
        return await self.with_conn(lambda conn: announcements.end(conn, endings, self.by, now))

    async def with_conn(
        self,
        work: Callable[[AsyncConnection], Awaitable[T]],
        isolation_level: IsolationLevel = "SERIALIZABLE",
    ) -> T:
        """Run one transaction until it succeeds."""
        engine = self.engine.execution_options(isolation_level=isolation_level)
        return await in_transaction(engine, work, rng=self.rng, on_retry=lambda _: self.at_work())


def _batch(trace: Trace, since: Mapping[str, Position]) -> Batch | None:
    """What is to be settled of a transaction, if anything is."""
    records = tuple(record for found in trace.records if (record := _since(found, since)).credits)
    if not records:
        return None
    first, last = records[0].operation_id, records[-1].operation_id
    return Batch(records, Position(first - 1), last, trace.closed_at, len(records))


def _since(record: LedgerRecord, since: Mapping[str, Position]) -> LedgerRecord:
    """The credits of a record that came after the watching of their accounts began."""
    mine = (c for c in record.credits if c.operation_id > since[c.account])
    return replace(record, credits=tuple(mine))

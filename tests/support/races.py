"""Several processes on one database, and the moment at which they all want the same row."""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Container,
    Coroutine,
    Mapping,
)
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random
from typing import Any, Final

import psycopg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from paywatch.domain.announcement import Trace, TxState
from paywatch.domain.checkout import OPEN
from paywatch.domain.delivery import Answer
from paywatch.domain.ledger import Batch, Credit, LedgerRecord
from paywatch.errors import CursorMoved
from paywatch.service.announce import Announcements
from paywatch.service.audit import Auditor
from paywatch.service.backfill import Backfill
from paywatch.service.dispatch import Dispatcher, Limits
from paywatch.service.follow import Follower, Stream
from paywatch.service.held import HeldCredits
from paywatch.service.letters import Letters
from paywatch.service.recover import Recovery
from paywatch.service.settle import Order, Settler
from paywatch.service.trace import Tracer
from paywatch.store.cursors import Cursor, live_stream
from paywatch.store.engine import create_engine
from paywatch.store.retry import in_transaction
from paywatch.telemetry import Metrics, Progress
from paywatch.webhooks.sealing import Vault
from paywatch.webhooks.signing import generate_secret, sign
from support import ACCOUNT, NOW, Shop, closing, make_batch
from support.audits import AuditPages
from support.elections import election_on
from support.locks import somebody_waits_for_a_lock
from support.pages import Pages


@asynccontextmanager
async def processes(database_url: str, count: int) -> AsyncIterator[list[AsyncEngine]]:
    """Pools of connections, one for each process that there would be."""
    pools = [create_engine(database_url) for _ in range(count)]
    try:
        yield pools
    finally:
        for pool in pools:
            await pool.dispose()


async def at_once(*works: Coroutine[Any, Any, Any]) -> list[Any]:
    """What came of each, in their order: a result, or what it raised."""
    return list(await asyncio.gather(*works, return_exceptions=True))


async def collide(
    database_url: str, *works: Coroutine[Any, Any, Any], on: str, waiting: int | None = None
) -> list[Any]:
    """Begin works while somebody holds what they all want, and let go when they all wait for it.

    Args:
        database_url: whose rows.
        works: each has looked at the database by then, and changed nothing yet that is wanted.
        on: a statement that locks what they want.
        waiting: how many of them will wait; all of them if it is not given.

    Returns:
        What came of each, in their order.
    """
    with psycopg.connect(database_url) as holder, psycopg.connect(database_url) as prober:
        holder.execute(on)
        racing = asyncio.gather(*works, return_exceptions=True)
        await somebody_waits_for_a_lock(prober, waiting or len(works))
        holder.rollback()
        return list(await racing)


_CANCEL: Final = text(
    """
WITH old AS MATERIALIZED (
    SELECT id, status FROM checkout_sessions WHERE muxed_id = :number FOR UPDATE
), canceled AS (
    UPDATE checkout_sessions s SET status = 'canceled', updated_at = :now
      FROM old WHERE s.id = old.id AND old.status = ANY(:open)
    RETURNING s.id, old.status
)
INSERT INTO session_transitions (session_id, before, after, cause, by, recorded_at)
SELECT id, status, 'canceled', 'canceled', 'merchant', :now FROM canceled"""
)


async def cancel(engine: AsyncEngine, number: int) -> bool:
    """Cancel a session as a merchant's command would: under its lock, unless it is over."""
    values = {"number": number, "now": NOW, "open": sorted(OPEN)}

    async def write(conn: AsyncConnection) -> bool:
        return (await conn.execute(_CANCEL, values)).rowcount == 1

    return await in_transaction(engine, write, rng=Random(number))


VAULT: Final = Vault(b"k" * 32)
SESSION: Final = "SELECT FROM checkout_sessions WHERE muxed_id = 1 FOR UPDATE"

Post = Callable[[str, Mapping[str, str], bytes], Awaitable[Answer]]


@dataclass
class Sender:
    """Answers as the test says."""

    answer: Post

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        return await self.answer(url, headers, body)


@dataclass
class Ledger(Pages):
    """A Horizon that tells of transactions to whoever asks."""

    async def trace(self, tx_hash: str, watched: Container[str]) -> Trace:
        await asyncio.sleep(0)
        found = await super().trace(tx_hash, {ACCOUNT})
        credited = (replace(r, credits=_of(watched, r)) for r in found.records)
        return replace(found, records=tuple(credited))


def _of(watched: Container[str], record: LedgerRecord) -> tuple[Credit, ...]:
    return tuple(credit for credit in record.credits if credit.account in watched)


@dataclass
class Arena:
    """A shop, and everything that may work on it, each on a pool of its own."""

    shop: Shop
    url: str
    pools: list[AsyncEngine]
    pages: Ledger = field(default_factory=Ledger)
    _used: int = 0

    def pool(self) -> AsyncEngine:
        self._used += 1
        return self.pools[self._used % len(self.pools)]

    def settler(self) -> Settler:
        return Settler(self.pool(), self.shop.metrics, lambda: NOW, Random(self._used))

    def recovery(self) -> Recovery:
        settler = self.settler()
        rng = Random(self._used)
        return Recovery(settler.engine, settler, self.pages, lambda: NOW, rng, self.shop.metrics)

    def backfill(self) -> Backfill:
        settler = self.settler()
        return Backfill(settler.engine, settler, self.pages, lambda: NOW, Random(self._used))

    def announcements(self) -> Announcements:
        settler, rng = self.settler(), Random(self._used)
        return Announcements(
            Tracer(settler.engine, settler, self.pages, lambda: NOW, rng, "announce")
        )

    def words(self) -> HeldCredits:
        return HeldCredits(self.pool(), self.pages, lambda: NOW, Random(self._used))

    def auditor(self) -> Auditor:
        settler, source = self.settler(), AuditPages(self.pages)
        rng, metrics = Random(self._used), self.shop.metrics
        return Auditor(settler.engine, settler, source, lambda: NOW, rng, metrics)

    def letters(self) -> Letters:
        return Letters(self.pool(), lambda: NOW)

    def dispatcher(self, post: Post, limits: Limits | None = None) -> Dispatcher:
        rng = Random(self._used)
        return Dispatcher(
            self.pool(), Sender(post), VAULT, sign, Metrics(), lambda: NOW, rng, limits or Limits()
        )

    async def seal_endpoint(self) -> None:
        """Give the shop's endpoint a secret that can be opened."""
        sealed = VAULT.seal(generate_secret(), self.shop.endpoint_id)
        await self.shop.execute("UPDATE endpoints SET sealed_secret = :sealed", sealed=sealed)

    async def stream(self) -> None:
        """Follow the shop's ledger to its end as a leader does, whoever else believes to lead."""
        settler, progress = self.settler(), Progress()
        election = election_on(settler.engine, lambda: NOW, progress)
        rng, metrics = Random(self._used), self.shop.metrics
        follower = Follower(settler.engine, election, settler, lambda: NOW, rng, metrics, progress)
        stream = Stream(live_stream(self.shop.account), self.shop.account, self._batches)
        progress.watch(f"listen:{stream.label}", timedelta(hours=1), NOW)
        while True:
            with suppress(CursorMoved):
                return await follower.follow(stream, asyncio.Event())

    async def _batches(self, claim: Cursor) -> AsyncGenerator[Batch, None]:
        position = claim.position
        while position < self.pages.tip:
            batch = await self.pages.page(self.shop.account, position)
            yield batch
            position = batch.upto

    def settling(self, *credits_: Credit, by: str = "reader") -> Any:
        return self.settler().settle(Order(make_batch(credits_), by))

    async def collide(self, *works: Any, on: str = SESSION, waiting: int | None = None) -> Any:
        return await collide(self.url, *works, on=on, waiting=waiting)


def on_the_ledger(credit: Credit) -> dict[str, Trace | Exception]:
    """What Horizon says of a credit's transaction."""
    records = make_batch([credit]).records
    ledger = credit.operation_id.ledger
    seen = Trace(TxState.SUCCEEDED, closing(2000), ledger, credit.closed_at, records)
    return {credit.tx_hash: seen}

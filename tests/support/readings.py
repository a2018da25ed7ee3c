"""One ledger on two accounts, read by many readers at once, each having a bad day."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import pytest

from paywatch.domain.checkout import Terms
from paywatch.domain.ledger import Credit, LedgerRecord, Position
from paywatch.errors import CursorMoved
from paywatch.service.recover import Recovery
from paywatch.service.settle import Order
from paywatch.store import cursors
from paywatch.store.cursors import Cursor, backfill_stream, live_stream
from paywatch.store.invariants import find_violations
from support import ACCOUNT, NOW, START, Shop, address, batch_of, closing, make_batch
from support.pages import Pages

OTHER_ACCOUNT = address("other account")
PLACES = (ACCOUNT, OTHER_ACCOUNT)
SESSIONS = {1: ACCOUNT, 2: ACCOUNT, 3: OTHER_ACCOUNT}
LAST = 1006  # the last ledger with operations
TIP = Position.after_ledger(LAST + 1)
TABLES = (
    "quarantine, credits, payments, events, deliveries, attempts, session_transitions,"
    " checkout_sessions, cursors"
)

Ledger = dict[str, list[LedgerRecord]]


@dataclass(frozen=True)
class Opened:
    """The terms of one session over 100 stroops."""

    deadline: int  # a ledger
    grace: int  # in ledgers
    least: int

    @property
    def values(self) -> dict[str, Any]:
        until = closing(self.deadline + self.grace)
        return {"expires_at": closing(self.deadline), "terms": Terms(self.least, until, True)}


@dataclass(frozen=True)
class Step:
    """What one reader does: `count` operations from where it stands, or from the `at`th on."""

    what: str
    place: str  # the account
    at: int
    count: int
    skipped: frozenset[int]  # operations that it is not shown, where order does not matter
    twice: bool  # an audit settles the same at the same moment
    expires: bool  # what is overdue then


@dataclass
class Reader:
    """A stream with its cursor, and the claim that was taken from it."""

    claim: Cursor
    lost: Cursor | None = None


@dataclass
class Reading:
    """One ledger, read by many into one database."""

    shop: Shop
    ledger: Ledger
    in_order: bool = True
    live: dict[str, Reader] = field(default_factory=dict)
    backfills: dict[str, Reader] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PLACES, 0))

    async def begin(self, sessions: Sequence[Opened]) -> None:
        """Empty the shop, and open the sessions and the live streams."""
        await self.shop.execute(f"TRUNCATE {TABLES} RESTART IDENTITY CASCADE")
        for (number, account), terms in zip(SESSIONS.items(), sessions, strict=True):
            await self.shop.add_session(number, account=account, **terms.values)
        for account in PLACES:
            self.live[account] = await self._open(Cursor(live_stream(account), account, START))

    async def take(self, step: Step) -> None:
        match step.what:
            case "page":
                await self._page(self.live[step.place], step)
            case "early":
                await self._early(step)
            case "backfill":
                await self._backfill(step)
            case "audit":
                begin = min(step.at, self.seen[step.place]) if self.in_order else step.at
                await self._audit(step.place, self._shown(step.place, begin, step))
            case "restart":
                await self._restart(step)
        if step.expires:
            await _expire_overdue(self.shop)

    async def finish(self) -> None:
        """Read all that is left, look at everything again, and expire what is overdue then."""
        await asyncio.gather(*map(self._finish, PLACES))
        await _expire_overdue(self.shop)

    async def _finish(self, account: str) -> None:
        rest = Step("page", account, 0, 200, frozenset(), twice=False, expires=False)
        while self.live[account].claim.position < TIP:
            await self._page(self.live[account], rest)
        while account in self.backfills:
            await self._backfill(rest)
        await self._audit(account, self.ledger[account])

    async def _page(self, reader: Reader, step: Step) -> None:
        """Only pages move a cursor; the one behind the last operation moves it to the tip."""
        claim = reader.claim
        begin = self._index(claim)
        records = self._shown(step.place, begin, step)
        end = min(begin + step.count, len(self.ledger[step.place]))
        upto = self.ledger[step.place][end - 1].operation_id if end > begin else TIP
        order = Order(batch_of(records, claim.position, upto), claim.stream, claim)
        await self._settle(order, step)
        reader.claim = replace(claim, position=upto)

    async def _early(self, step: Step) -> None:
        """What the stream has brought beyond the position; the position stays."""
        claim = self.live[step.place].claim
        records = self._shown(step.place, self._index(claim), step)
        batch = replace(batch_of(records, claim.position, claim.position), closed_at=None)
        await self._settle(Order(batch, claim.stream, claim), step)

    async def _backfill(self, step: Step) -> None:
        """Begin one, or go on with it; at its end it forgets its cursor."""
        reader = self.backfills.get(step.place)
        if reader is None:
            at = min(step.at, self.seen[step.place]) if self.in_order else step.at
            known = [START, *(record.operation_id for record in self.ledger[step.place])]
            after = known[min(at, len(known) - 1)]
            stream = backfill_stream(step.place, after)
            cursor = Cursor(stream, step.place, after, end_position=TIP)
            self.backfills[step.place] = await self._open(cursor)
            return
        await self._page(reader, step)
        if reader.claim.position == TIP:
            async with self.shop.engine.begin() as conn:
                await cursors.close_backfill(conn, reader.claim)
            del self.backfills[step.place]

    async def _audit(self, account: str, records: Sequence[LedgerRecord]) -> None:
        if records:
            await self.shop.settler.settle(Order(batch_of(records), by=f"audit:{account}"))

    async def _restart(self, step: Step) -> None:
        """Take the claims again, as after a kill; whoever had them settles nothing any more."""
        for reader in filter(None, (self.live[step.place], self.backfills.get(step.place))):
            reader.lost, reader.claim = reader.claim, await self._claim(reader.claim.stream)
            assert reader.claim.position == reader.lost.position
            records = self.ledger[step.place][self._index(reader.lost) :]
            batch = batch_of(records, reader.lost.position, TIP)
            with pytest.raises(CursorMoved):
                await self.shop.settler.settle(Order(batch, reader.lost.stream, reader.lost))

    async def _settle(self, order: Order, step: Step) -> None:
        twin = replace(order, by=f"audit:{step.place}", claim=None)
        orders = [order, twin] if step.twice else [order]
        await asyncio.gather(*map(self.shop.settler.settle, orders))

    async def _open(self, cursor: Cursor) -> Reader:
        async with self.shop.engine.begin() as conn:
            await cursors.open_stream(conn, cursor, NOW)
        return Reader(await self._claim(cursor.stream))

    async def _claim(self, stream: str) -> Cursor:
        async with self.shop.engine.begin() as conn:
            claim = await cursors.claim(conn, stream, NOW)
        assert claim is not None
        return claim

    def _index(self, claim: Cursor) -> int:
        return sum(r.operation_id <= claim.position for r in self.ledger[claim.label])

    def _shown(self, account: str, begin: int, step: Step) -> list[LedgerRecord]:
        """The next operations, but for those that a bad day hides."""
        records = self.ledger[account][begin : begin + step.count]
        if self.in_order:
            self.seen[account] = max(self.seen[account], begin + len(records))
            return records
        return [record for n, record in enumerate(records) if n not in step.skipped]


async def read_all(
    shop: Shop, ledger: Sequence[Credit], sessions: Sequence[Opened], schedule: Sequence[Step],
    *, in_order: bool = True,
) -> None:  # fmt: skip
    """Read a ledger by a schedule and then to its end; without a schedule, undisturbed."""
    of = {account: [c for c in ledger if c.account == account] for account in PLACES}
    records = {account: list(make_batch(mine).records) if mine else []
               for account, mine in of.items()}  # fmt: skip
    reading = Reading(shop, records, in_order)
    await reading.begin(sessions)
    for step in schedule:
        await reading.take(step)
    await reading.finish()
    async with shop.engine.begin() as conn:
        assert await find_violations(conn, NOW) == []


async def _expire_overdue(shop: Shop) -> None:
    recovery = Recovery(shop.engine, shop.settler, Pages(), lambda: NOW, Random(1), shop.metrics)
    await recovery.expire_overdue()

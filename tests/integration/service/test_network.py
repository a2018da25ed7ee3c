"""One stream for all accounts: who joins it when, and that no change of mode loses anything."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Container
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any
from uuid import uuid4

import pytest

from paywatch.domain.ledger import Batch, Credit, Memo, Position
from paywatch.service.backfill import Backfill
from paywatch.service.follow import Follower, Timing
from paywatch.service.listen import Listener
from paywatch.service.network import NEAR_LEDGERS, NetworkReader
from paywatch.store import cursors, network, recovery
from paywatch.store.cursors import NETWORK_STREAM, Cursor, live_stream
from paywatch.store.merchants import WatchedAccount
from paywatch.telemetry import Progress
from support import (
    ACCOUNT,
    FIRST_LEDGER,
    MERCHANT_ID,
    NOW,
    START,
    Shop,
    address,
    make_batch,
    make_credit,
)
from support.elections import election_on
from support.pages import Pages
from support.streams import Streams

OTHER, THIRD = address("other shop"), address("third shop")
QUICK = Timing(accounts_s=0.01, again_s=0.01, stopped_s=0.01)


@dataclass
class Everybody:
    """A ledger that is read as a whole, page by page, and grows as the test says.

    Attributes:
        before_page: awaited before each page of a reader that began at that position.
        began: where each reader began.
    """

    size: int = 200
    tip: Position = START
    before_page: Callable[[Position], Any] | None = None
    began: list[Position] = field(default_factory=list)
    _credits: list[Credit] = field(default_factory=list)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def grow(self, *credits_: Credit, ledger: int = 0) -> None:
        self._credits += credits_
        ends = [Position.after_ledger(c.operation_id.ledger) for c in credits_]
        self.tip = max([self.tip, Position.after_ledger(ledger), *ends])
        async with self._changed:
            self._changed.notify_all()

    async def network_batches(
        self, watched: Callable[[], Container[str]], after: Position
    ) -> AsyncGenerator[Batch, None]:
        began = after
        self.began.append(began)
        while True:
            if self.before_page is not None:
                await self.before_page(began)
            async with self._changed:
                while self.tip <= after:
                    await self._changed.wait()
            pages = Pages(
                [replace(c, account="") for c in self._credits], size=self.size, tip=self.tip
            )
            page = await pages.page("", after)
            real = {c.key: c for c in self._credits}
            kept = []
            for record in page.records:
                mine = tuple(real[c.key] for c in record.credits)
                mine = tuple(c for c in mine if c.account in watched())
                if mine:
                    kept.append(replace(record, credits=mine))
            yield replace(page, records=tuple(kept))
            after = page.upto


@dataclass
class Town:
    """Some shops and a process that listens for them."""

    shop: Shop
    ledger: Everybody = field(default_factory=Everybody)
    streams: Streams = field(default_factory=Streams)
    pages: Pages = field(default_factory=Pages)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def follower(self) -> Follower:
        shop, progress = self.shop, Progress()
        election = election_on(shop.engine, lambda: NOW, progress)
        return Follower(
            shop.engine,
            election,
            self.streams.heard(shop.settler),
            lambda: NOW,
            Random(1),
            shop.metrics,
            progress,
            QUICK,
        )

    @property
    def reader(self) -> NetworkReader:
        shop = self.shop
        backfill = Backfill(shop.engine, shop.settler, self.pages, lambda: NOW, Random(1))
        return NetworkReader(self.follower, self.ledger, backfill)

    def listener(self, most_streams: int | None = 0) -> Listener:
        return Listener(self.follower, self.streams, self.reader, most_streams)

    @asynccontextmanager
    async def listening(self, most_streams: int | None = 0) -> AsyncIterator[None]:
        stop = asyncio.Event()
        running = asyncio.create_task(self.listener(most_streams).run(stop))
        try:
            async with asyncio.timeout(30):
                yield
                stop.set()
                await running
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await running

    async def add_shop(self, account: str, position: Position = START) -> Shop:
        shop = Shop(self.shop.engine, account, uuid4(), uuid4(), position)
        return await shop.open()

    async def joined(self, *accounts: str) -> None:
        """Wait until exactly these have joined."""
        sql = "SELECT account FROM accounts WHERE followed_by = 'network' ORDER BY account"
        while [row[0] for row in await self.shop.rows(sql)] != sorted(accounts):  # noqa: ASYNC110 - rows have no event
            await asyncio.sleep(0)

    async def read_to(self, stream: str, position: int) -> None:
        """Wait until a cursor is there."""
        sql = "SELECT position FROM cursors WHERE stream = :stream"
        while not [p for (p,) in await self.shop.rows(sql, stream=stream) if p >= position]:  # noqa: ASYNC110 - the same
            await asyncio.sleep(0)

    async def credited(self) -> set[int]:
        return {row[0] for row in await self.shop.rows("SELECT operation_id FROM credits")}


@pytest.fixture
async def town(shop: Shop) -> Town:
    return Town(shop)


async def test_one_stream_reads_for_all_accounts(town: Town) -> None:
    other = await town.add_shop(OTHER)
    await town.shop.add_session(1)
    await other.add_session(2)
    mine = make_credit(ledger=1001)
    theirs = make_credit(ledger=1001, tx=2, account=OTHER, memo=Memo.of_id(2))
    nobodys = make_credit(ledger=1001, tx=3, account=THIRD)
    async with town.listening():
        await town.ledger.grow(mine, theirs, nobodys)
        await town.read_to(NETWORK_STREAM, nobodys.operation_id)
        await town.joined(ACCOUNT, OTHER)
    assert await town.shop.session(1) == await other.session(2) == ("paid", 100)
    assert await town.credited() == {mine.operation_id, theirs.operation_id}
    assert town.streams.opened == [], "no account has a stream of its own"


async def test_an_account_that_is_added_behind_the_stream_loses_nothing(town: Town) -> None:
    """Its place was read from Horizon before it was known here; the stream has gone on since."""
    early = make_credit(ledger=1003, account=OTHER, memo=Memo.of_id(2))
    late = make_credit(ledger=1009, account=OTHER, memo=Memo.of_id(3))
    async with town.listening():
        await town.ledger.grow(early, ledger=1005)
        await town.read_to(NETWORK_STREAM, Position.after_ledger(1005))
        other = await town.add_shop(OTHER, Position.after_ledger(1002))
        await other.add_session(2)
        await other.add_session(3)
        await town.ledger.grow(late)
        sql = "SELECT FROM accounts WHERE account = :account AND followed_by = 'network'"
        while not await town.shop.rows(sql, account=OTHER):
            await town.ledger.grow(ledger=town.ledger.tip.ledger + 1)  # as real ledgers go on
        await town.read_to(NETWORK_STREAM, late.operation_id)
    assert await other.session(2) == await other.session(3) == ("paid", 100)


async def test_the_changes_of_mode_lose_nothing_and_no_position_goes_down(town: Town) -> None:
    """The account's own cursor was behind, was passed by the network's, and goes on from there."""
    other = await town.add_shop(OTHER)
    parts = [make_credit(20, ledger=ledger) for ledger in (1001, 1002, 1003, 1004, 1005)]
    await town.shop.add_session(1)
    async with town.listening(None):
        await town.streams.grow(parts[0])
        await town.streams.settled(ACCOUNT, parts[0].operation_id)
    await town.ledger.grow(*parts[:3])
    async with town.listening(0):
        await town.joined(ACCOUNT, OTHER)
        await town.read_to(NETWORK_STREAM, Position.after_ledger(1003))
    assert min(town.ledger.began) == START, "the other one was behind: read for him again"
    await town.streams.grow(*parts[1:4])
    async with town.listening(None):
        await town.streams.settled(ACCOUNT, parts[3].operation_id)
        await town.joined()
    at = Position.after_ledger(1003)
    assert set(town.streams.opened[-2:]) == {(ACCOUNT, at), (OTHER, at)}, "not from the start again"
    await town.ledger.grow(*parts[3:])
    async with town.listening(0):
        await town.joined(ACCOUNT, OTHER)
        await town.read_to(NETWORK_STREAM, parts[4].operation_id)
    assert await town.shop.session(1) == ("paid", 100)
    assert len(await town.credited()) == 5
    assert other.account == OTHER


async def test_the_mode_follows_the_number_of_accounts_while_it_runs(town: Town) -> None:
    async with town.listening(most_streams=1):
        await town.streams.opens(1)
        await town.ledger.grow(ledger=1001)
        await town.add_shop(OTHER)
        await town.joined(ACCOUNT, OTHER)
    assert town.streams.open == 0


@pytest.mark.parametrize(
    ("most", "number", "is_network", "wanted"),
    [
        (None, 10_000, True, False),
        (0, 1, False, True),
        (0, 0, False, False),
        (4, 4, False, False),
        (4, 5, False, True),
        (4, 4, True, True),
        (4, 3, True, True),
        (4, 2, True, False),
    ],
)
async def test_when_the_network_is_read_as_a_whole(
    town: Town, most: int | None, number: int, is_network: bool, wanted: bool
) -> None:
    accounts = [WatchedAccount(ACCOUNT, MERCHANT_ID, START, is_network)] * number
    assert town.listener(most).wants_network(accounts) is wanted


async def test_one_that_is_far_behind_is_brought_by_its_own_pages_and_holds_up_nobody(
    town: Town,
) -> None:
    """Far: everybody's ledgers since then are too many. Horizon cannot be asked about the third."""
    far = FIRST_LEDGER + NEAR_LEDGERS + 10
    missed = make_credit(ledger=1001, account=OTHER, memo=Memo.of_id(2))
    other = await town.add_shop(OTHER)
    await other.add_session(2)
    await town.add_shop(THIRD)
    await town.shop.execute(
        "UPDATE cursors SET position = :at WHERE account = :account",
        at=int(Position.after_ledger(far)),
        account=ACCOUNT,
    )
    town.pages.credits, town.pages.away = [missed], {THIRD}
    town.pages.tip = Position.after_ledger(far + 1)
    async with town.listening():
        await town.ledger.grow(ledger=far + 1)
        await town.joined(ACCOUNT)
        await town.read_to(NETWORK_STREAM, Position.after_ledger(far + 1))
        town.pages.away = set()
        await town.joined(ACCOUNT, OTHER, THIRD)
    assert await other.session(2) == ("paid", 100)
    assert all(at.ledger >= far for at in town.ledger.began)


async def test_nobody_joins_before_the_ledger_was_read_for_him_up_to_there(town: Town) -> None:
    """While it is being read for him, his own cursor counts: nothing expires too early."""
    async with town.listening():
        await town.ledger.grow(ledger=1005)
        await town.joined(ACCOUNT)
        await town.read_to(NETWORK_STREAM, Position.after_ledger(1005))
        reading, go_on = asyncio.Event(), asyncio.Event()

        async def hold(began: Position) -> None:
            if began == Position.after_ledger(1002):
                reading.set()
                await go_on.wait()

        town.ledger.before_page = hold
        await town.add_shop(OTHER, Position.after_ledger(1002))
        while not reading.is_set():
            await town.ledger.grow(ledger=town.ledger.tip.ledger + 1)
            await town.read_to(NETWORK_STREAM, town.ledger.tip)
        await town.joined(ACCOUNT)
        async with town.shop.engine.begin() as conn:
            counts = await cursors.read_followed(conn, OTHER)
        assert counts is not None
        assert (counts.stream, counts.position.ledger) == (live_stream(OTHER), 1002)
        go_on.set()
        await town.joined(ACCOUNT, OTHER)


async def behind(town: Town) -> tuple[Cursor, list[Credit]]:
    """The stream, opened ten ledgers beyond the other shop, whose three credits nobody has read."""
    await town.add_shop(OTHER)
    await town.shop.execute(
        "UPDATE cursors SET position = :at WHERE account = :account",
        at=int(Position.after_ledger(1010)),
        account=ACCOUNT,
    )
    missed = [make_credit(ledger=n, account=OTHER, memo=Memo.of_id(n)) for n in (1003, 1005, 1007)]
    town.ledger.size = 1
    await town.ledger.grow(*missed, ledger=1011)
    return await opened(town), missed


async def test_a_leader_that_is_lost_while_it_reads_for_somebody_does_not_let_him_join(
    town: Town,
) -> None:
    """Nobody has claimed the stream since, so that the epoch alone would have let him."""
    claim, missed = await behind(town)
    reader, pages = town.reader, 0
    batches = reader.stream.batches(claim)
    await anext(batches)

    async def lose(began: Position) -> None:
        nonlocal pages
        pages += began == START
        if pages == 2:
            await batches.aclose()

    town.ledger.before_page = lose
    assert await reader.join_some() == set()
    assert len(await town.credited()) < len(missed)
    await town.joined(ACCOUNT)
    town.ledger.before_page = None
    async with aclosing(reader.stream.batches(await opened(town))) as again:
        await anext(again)
        assert await reader.join_some() == {OTHER}
    assert await town.credited() == {int(credit.operation_id) for credit in missed}


async def test_a_following_that_was_cut_off_and_ends_late_takes_nothing_from_the_next(
    town: Town,
) -> None:
    claim, _ = await behind(town)
    reader = town.reader
    older = reader.stream.batches(claim)
    await anext(older)
    async with aclosing(reader.stream.batches(await opened(town))) as newer:
        await anext(newer)
        await older.aclose()
        assert await reader.join_some() == {OTHER}


@dataclass
class TakenOver(Pages):
    """Pages whose first reader loses its backfill meanwhile."""

    take_over: Callable[[], Awaitable[None]] | None = None

    async def page(self, account: str, after: Position) -> Batch:
        if self.take_over is not None:
            take_over, self.take_over = self.take_over, None
            await take_over()
        return await super().page(account, after)


async def test_a_backfill_of_a_joining_that_another_process_takes_over_does_not_end_the_listener(
    town: Town,
) -> None:
    """As the second machine does when it starts, with every backfill that it finds unfinished."""
    far = FIRST_LEDGER + NEAR_LEDGERS + 10
    await town.add_shop(OTHER)
    await town.shop.execute(
        "UPDATE cursors SET position = :at WHERE account = :account",
        at=int(Position.after_ledger(far)),
        account=ACCOUNT,
    )

    async def take_over() -> None:
        await town.shop.execute(
            "UPDATE cursors SET epoch = epoch + 1 WHERE end_position IS NOT NULL"
        )

    pages = town.pages = TakenOver([], tip=Position.after_ledger(far + 1), take_over=take_over)
    async with town.listening():
        await town.ledger.grow(ledger=far + 1)
        await town.joined(ACCOUNT, OTHER)
    assert pages.take_over is None


async def test_sessions_of_those_who_joined_begin_and_expire_by_the_network_stream(
    town: Town,
) -> None:
    other = await town.add_shop(OTHER, Position(START + 1))  # the stream begins there
    for shop, number in ((town.shop, 1), (other, 2)):
        await shop.add_session(number, expires_at=NOW.replace(minute=1))
    await opened(town)
    await town.shop.execute(
        "UPDATE cursors SET read_through_at = :at WHERE stream = :stream",
        at=NOW.replace(minute=2),
        stream=NETWORK_STREAM,
    )
    async with town.shop.engine.begin() as conn:
        [overdue] = await recovery.lock_overdue(conn)
        assert overdue.account == OTHER
        counts = [await cursors.read_followed(conn, account) for account in (ACCOUNT, OTHER)]
        assert [c and c.stream for c in counts] == [live_stream(ACCOUNT), NETWORK_STREAM]
        followed = [cursor.stream for cursor in await cursors.read_all_followed(conn)]
    assert followed == [NETWORK_STREAM], "who waits to join is not shown one by one"


async def opened(town: Town) -> Cursor:
    """The stream's cursor, opened and claimed."""
    async with town.shop.engine.begin() as conn:
        await network.open_network(conn, NOW)
        claim = await cursors.claim(conn, NETWORK_STREAM, NOW)
    assert claim is not None
    return claim


async def join(town: Town, account: str, epoch: int) -> bool:
    async with town.shop.engine.begin() as conn:
        return await network.join(conn, [account], epoch) == {account}


async def test_who_leads_no_more_lets_nobody_join(town: Town) -> None:
    await town.add_shop(OTHER, Position(START - 1))
    claim = await opened(town)
    assert not await join(town, OTHER, claim.epoch - 1)
    assert await join(town, OTHER, claim.epoch)


async def test_nobody_joins_a_stream_that_has_not_passed_him(town: Town) -> None:
    claim = await opened(town)
    await town.add_shop(OTHER, Position(START + 1))
    assert not await join(town, OTHER, claim.epoch)


async def test_a_stream_that_nobody_relies_on_jumps_and_takes_the_lead_from_its_reader(
    town: Town,
) -> None:
    """Whoever read it before knows nothing of the ledgers between: he may let nobody in."""
    await town.add_shop(OTHER, Position(START - 1))
    before = await opened(town)
    async with town.shop.engine.begin() as conn:
        assert await network.leave(conn, NOW) == 1
    await town.shop.execute(
        "UPDATE cursors SET position = position + 5 WHERE account = :account", account=ACCOUNT
    )
    after = await opened(town)
    assert after.position == before.position + 5
    assert not await join(town, OTHER, before.epoch)
    async with town.shop.engine.begin() as conn:
        assert not await cursors.advance(
            conn, NETWORK_STREAM, before.epoch, make_batch([], START, START + 9), NOW
        )


async def test_a_stream_that_reads_for_somebody_does_not_jump(town: Town) -> None:
    await town.add_shop(OTHER, Position(START - 1))
    before = await opened(town)
    await town.shop.execute(
        "UPDATE cursors SET position = position + 5 WHERE account = :account", account=OTHER
    )
    after = await opened(town)
    assert (after.position, after.epoch) == (before.position, before.epoch + 1), "but for the claim"


async def test_who_is_where_the_stream_begins_joins_it_at_once(town: Town) -> None:
    await town.add_shop(OTHER)
    await town.add_shop(THIRD, Position(START - 1))
    await opened(town)
    await town.joined(ACCOUNT, OTHER)


async def test_a_record_that_nobody_can_read_is_kept_once_and_let_go_when_it_is_read(
    town: Town,
) -> None:
    credit = make_credit()
    for stream in (NETWORK_STREAM, live_stream(ACCOUNT)):
        await town.shop.execute(
            "INSERT INTO quarantine (stream, operation_id, raw, reason, quarantined_at)"
            " VALUES (:stream, :id, '{}', 'unreadable', :now)",
            stream=stream,
            id=int(credit.operation_id),
            now=NOW,
        )
    await town.shop.settle(credit)
    assert await town.shop.rows("SELECT count(*) FROM quarantine") == [(0,)]

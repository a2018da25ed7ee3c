"""Listening on a real database: every account followed, through whatever happens beneath it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random
from uuid import uuid4

import psycopg
import pytest
from structlog.testing import capture_logs

from paywatch.domain.ledger import Memo, Position
from paywatch.errors import HistoryGap, HorizonError, NetworkReset, WrongNetwork
from paywatch.service import elect
from paywatch.service.follow import Follower, Timing
from paywatch.service.listen import Listener
from paywatch.telemetry import Metrics, Progress
from paywatch.telemetry.metrics import STREAM_STATES
from support import ACCOUNT, NOW, START, USDC, Shop, address, make_credit
from support.databases import away
from support.elections import election_on
from support.locks import somebody_waits_for_a_lock
from support.streams import Streams, never_read

OTHER = address("other shop")
QUICK = Timing(accounts_s=0.01, again_s=0.01, stopped_s=0.01)


class Waits(Random):
    """Randomness that tells when a database error is being waited out."""

    def __init__(self) -> None:
        super().__init__(1)
        self.waiting = asyncio.Event()

    def uniform(self, a: float, b: float) -> float:
        self.waiting.set()
        return super().uniform(a, min(b, 0.05))


class Beats(Progress):
    """Progress that counts the beats."""

    def __init__(self) -> None:
        super().__init__()
        self.beats: list[str] = []
        self.beaten = asyncio.Event()

    def beat(self, name: str, now: datetime) -> None:
        super().beat(name, now)
        if name.startswith("listen:"):
            self.beats.append(name)
        self.beaten.set()


# As the server does with a holder that says nothing.
END_LOCK_HOLDERS = """
SELECT pg_terminate_backend(pid) FROM pg_locks
 WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = %s)"""


@dataclass
class Radio:
    """A shop and a listener to its ledger."""

    shop: Shop
    streams: Streams = field(default_factory=Streams)
    progress: Progress = field(default_factory=Progress)
    rng: Waits = field(default_factory=Waits)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    metrics: Metrics = field(default_factory=Metrics)
    round_s: float = 0.01

    def listener(self, timing: Timing = QUICK) -> Listener:
        rounds = elect.Timing(round_s=self.round_s)
        follower = Follower(
            self.shop.engine,
            election_on(self.shop.engine, lambda: NOW, self.progress, rounds),
            self.streams.heard(replace(self.shop.settler, rng=self.rng)),
            lambda: NOW,
            self.rng,
            self.metrics,
            self.progress,
            timing,
        )
        return Listener(follower, self.streams, never_read(follower))

    @asynccontextmanager
    async def on(self, timing: Timing = QUICK) -> AsyncIterator[asyncio.Task[None]]:
        """Listen within the block, and stop gracefully at its end."""
        running = asyncio.create_task(self.listener(timing).run(self.stop))
        try:
            yield running
            self.stop.set()
            await running
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await running

    def leads(self, account: str = ACCOUNT) -> float:
        """1 if it leads, as the metric says."""
        value = self.metrics.registry.get_sample_value
        return value("paywatch_stream_leader", {"stream": account}) or 0

    def state(self, account: str = ACCOUNT) -> str:
        """What the metric says."""
        name, value = "paywatch_stream_state", self.metrics.registry.get_sample_value
        states = (s for s in STREAM_STATES if value(name, {"stream": account, name: s}))
        return next(states, "not begun")


@pytest.fixture
async def radio(shop: Shop) -> Radio:
    return Radio(shop)


async def second_shop(shop: Shop) -> Shop:
    return await Shop(shop.engine, OTHER, uuid4(), uuid4()).open()


async def test_lesson_15_every_account_is_followed_from_its_stored_cursor(radio: Radio) -> None:
    """Never from `now`, never from a place derived from the tip (lessons 10 and 15)."""
    other = await second_shop(radio.shop)
    await radio.shop.add_session(1)
    await other.add_session(2)
    mine, theirs = make_credit(ledger=1001), make_credit(ledger=1500, account=OTHER)
    async with radio.on():
        await radio.streams.grow(mine, replace(theirs, memo=Memo.of_id(2), closed_at=NOW))
        await radio.streams.settled(ACCOUNT, mine.operation_id)
        await radio.streams.settled(OTHER, theirs.operation_id)
        assert radio.state() == radio.state(OTHER) == "live"
    assert sorted(radio.streams.opened) == sorted([(ACCOUNT, START), (OTHER, START)])
    assert await radio.shop.session(1) == ("paid", 100)
    assert await other.session(2) == ("paid", 100)
    value = radio.metrics.registry.get_sample_value
    assert value("paywatch_position_ledger", {"stream": OTHER}) == 1500


async def test_lesson_15_two_assets_on_one_account_are_read_by_one_stream(radio: Radio) -> None:
    await radio.shop.add_session(1)
    await radio.shop.add_session(2, asset=USDC)
    lumens, dollars = make_credit(tx=1), make_credit(tx=2, asset=USDC, memo=Memo.of_id(2))
    async with radio.on():
        await radio.streams.grow(lumens, dollars)
        await radio.streams.settled(ACCOUNT, dollars.operation_id)
    assert radio.streams.opened == [(ACCOUNT, START)]
    assert await radio.shop.session(1) == await radio.shop.session(2) == ("paid", 100)


async def test_an_account_added_while_it_runs_is_taken_up(radio: Radio) -> None:
    async with radio.on():
        await radio.streams.opens(1)
        other = await second_shop(radio.shop)
        await other.add_session(2)
        await radio.streams.opens(2)
        credit = make_credit(account=OTHER, memo=Memo.of_id(2))
        await radio.streams.grow(credit)
        await radio.streams.settled(OTHER, credit.operation_id)
    assert await other.session(2) == ("paid", 100)
    assert len(radio.streams.opened) == 2, "nobody is followed twice"


async def test_a_stop_ends_the_wait_at_once_and_leaves_nothing_behind(radio: Radio) -> None:
    before = asyncio.all_tasks()
    async with radio.on(Timing()):  # with its long waits
        await radio.streams.opens(1)
    assert radio.streams.open == 0
    assert asyncio.all_tasks() == before
    assert radio.progress.stale(NOW + timedelta(days=1)) == []


async def test_a_stop_finishes_the_batch_that_was_begun(radio: Radio, database_url: str) -> None:
    await radio.shop.add_session()
    with psycopg.connect(database_url) as other, psycopg.connect(database_url) as watcher:
        other.execute("SELECT FROM checkout_sessions FOR UPDATE")
        async with radio.on() as running:
            await radio.streams.grow(make_credit())
            await somebody_waits_for_a_lock(watcher)
            radio.stop.set()
            await asyncio.sleep(0)
            assert not running.done()
            other.rollback()
    assert await radio.shop.session() == ("paid", 100)
    assert await radio.shop.rows("SELECT position FROM cursors") == [(make_credit().operation_id,)]


async def test_lesson_10_a_restart_goes_on_where_the_last_one_committed(radio: Radio) -> None:
    """The cursor is saved with what it brought, never after a failure (lesson 11)."""
    radio.streams.size = 1
    await radio.shop.add_session()
    first, second = make_credit(60, ledger=1001), make_credit(40, ledger=1002)
    async with radio.on():
        await radio.streams.grow(first)
        await radio.streams.settled(ACCOUNT, first.operation_id)
    again = Radio(radio.shop, radio.streams)
    async with again.on():
        await radio.streams.grow(second)
        await radio.streams.settled(ACCOUNT, second.operation_id)
    assert radio.streams.opened == [(ACCOUNT, START), (ACCOUNT, first.operation_id)]
    assert await radio.shop.session() == ("paid", 100)


async def test_of_two_one_leads_and_the_other_takes_over_when_it_is_gone(radio: Radio) -> None:
    await radio.shop.add_session()
    parts = [make_credit(50, ledger=ledger) for ledger in (1001, 1002)]
    leader = Radio(radio.shop)
    async with leader.on():
        await leader.streams.opens(1)
        async with radio.on():
            while radio.state() == "not begun":  # noqa: ASYNC110 - a metric has no event
                await asyncio.sleep(0)
            await leader.streams.grow(parts[0])
            await leader.streams.settled(ACCOUNT, parts[0].operation_id)
            assert (leader.state(), radio.state()) == ("live", "standby")
            assert (leader.leads(), radio.leads()) == (1, 0)
            assert radio.streams.opened == [], "a standby asks Horizon nothing"
            await radio.streams.grow(*parts)
            leader.stop.set()
            await radio.streams.settled(ACCOUNT, parts[1].operation_id)
            assert radio.streams.opened == [(ACCOUNT, parts[0].operation_id)]
            assert radio.leads() == 1
    assert await radio.shop.session() == ("paid", 100)
    assert await radio.shop.rows("SELECT epoch FROM cursors") == [(2,)]


async def test_two_started_at_once_lose_and_double_nothing(radio: Radio) -> None:
    await radio.shop.add_session()
    both, credit = (radio, Radio(radio.shop)), make_credit()
    async with both[0].on(), both[1].on():
        for one in both:
            await one.streams.grow(credit)
        async with asyncio.timeout(10):
            while await radio.shop.session() == ("pending", 0):  # noqa: ASYNC110 - either tells
                await asyncio.sleep(0)
        assert sorted(one.leads() for one in both) == [0, 1]
        assert await radio.shop.rows("SELECT epoch FROM cursors") == [(1,)]
    assert await radio.shop.session() == ("paid", 100)
    assert await radio.shop.rows("SELECT count(*) FROM credits") == [(1,)]


async def test_a_leader_whose_cursor_an_operator_moved_claims_it_anew(radio: Radio) -> None:
    """It leads still: standing by would leave the stream to nobody."""
    await radio.shop.add_session()
    with capture_logs() as logs:
        async with radio.on():
            await radio.streams.opens(1)
            await radio.shop.claim()  # as an operator's command does
            await radio.streams.grow(make_credit())
            await radio.streams.settled(ACCOUNT, make_credit().operation_id)
    assert [line["stream"] for line in logs if line["event"] == "cursor_moved"] == [ACCOUNT]
    assert await radio.shop.session() == ("paid", 100)


async def test_a_leader_that_was_frozen_does_not_take_the_stream_back(
    radio: Radio, cluster: str
) -> None:
    """Its locks went while it slept, and it learns of that by the cursor first."""
    await radio.shop.add_session()
    radio.round_s = 3600  # it asks no more by itself
    successor = Radio(radio.shop)
    async with radio.on():
        await radio.streams.opens(1)
        with psycopg.connect(cluster, autocommit=True) as server:
            server.execute(END_LOCK_HOLDERS, [radio.shop.engine.url.database])
        async with successor.on():
            await successor.streams.opens(1)
            await radio.streams.grow(make_credit())
            await successor.streams.grow(make_credit())
            await successor.streams.settled(ACCOUNT, make_credit().operation_id)
            async with asyncio.timeout(10):
                while radio.leads():  # noqa: ASYNC110 - a metric has no event
                    await asyncio.sleep(0)
            assert successor.leads() == 1
            assert radio.state() == "standby"
            found = await radio.shop.rows("SELECT count(*), max(epoch) FROM credits, cursors")
            assert found == [(1, 2)]


async def test_a_stop_while_the_database_is_away_is_at_once(radio: Radio, cluster: str) -> None:
    """It waited for the database until systemd killed it. What is not committed is read again."""
    await radio.shop.add_session()
    async with radio.on(Timing()) as running:
        await radio.streams.opens(1)
        with away(cluster, radio.shop.engine.url.database or ""):
            await radio.streams.grow(make_credit())
            await radio.rng.waiting.wait()
            radio.stop.set()
            async with asyncio.timeout(5):
                await running
    again = Radio(radio.shop)
    async with again.on():
        await again.streams.grow(make_credit())
        await again.streams.settled(ACCOUNT, make_credit().operation_id)
    assert await radio.shop.session() == ("paid", 100)


@pytest.mark.parametrize("error", [HistoryGap(), NetworkReset(), WrongNetwork()])
async def test_lesson_14_a_stream_that_may_not_go_on_stops_alone_says_so_and_is_tried_again(
    radio: Radio, error: HorizonError
) -> None:
    """One unreadable account ends neither the process nor the others (lesson 14)."""
    other = await second_shop(radio.shop)
    await radio.shop.add_session(1)
    await other.add_session(2)
    mine, theirs = make_credit(), make_credit(tx=2, account=OTHER, memo=Memo.of_id(2))
    radio.streams.errors = {ACCOUNT: error}
    with capture_logs() as logs:
        async with radio.on():
            await radio.streams.grow(mine, theirs)
            await radio.streams.settled(OTHER, theirs.operation_id)
            await radio.streams.opens(4)
            async with asyncio.timeout(10):
                while radio.state() != "stopped":  # noqa: ASYNC110 - a metric has no event
                    await asyncio.sleep(0)
            assert radio.state(OTHER) == "live"
            assert await other.session(2) == ("paid", 100)
            assert await radio.shop.session(1) == ("pending", 0)
            radio.streams.errors = {}
            await radio.streams.settled(ACCOUNT, mine.operation_id)
    assert await radio.shop.session(1) == ("paid", 100)
    [first, *_] = [line for line in logs if line["event"] == "stream_stopped"]
    assert (first["log_level"], first["stream"], first["error"]) == ("error", ACCOUNT, str(error))


async def test_lesson_6_a_database_that_is_away_for_a_while_loses_nothing(
    radio: Radio, cluster: str
) -> None:
    await radio.shop.add_session()
    parts = [make_credit(50, ledger=ledger) for ledger in (1001, 1002)]
    radio.progress = progress = Beats()
    async with radio.on():
        await radio.streams.grow(parts[0])
        await radio.streams.settled(ACCOUNT, parts[0].operation_id)
        with away(cluster, radio.shop.engine.url.database or ""):
            progress.beaten.clear()
            await radio.streams.grow(parts[1])
            await radio.rng.waiting.wait()
            await progress.beaten.wait()  # who waits for the database has not hung
        await radio.streams.settled(ACCOUNT, parts[1].operation_id)
    assert await radio.shop.session() == ("paid", 100)
    assert await radio.shop.rows("SELECT count(*) FROM credits") == [(2,)]
    assert set(radio.streams.opened[1:]) <= {(ACCOUNT, part.operation_id) for part in parts}


async def test_a_bug_in_one_stream_ends_the_listener_and_is_told(radio: Radio) -> None:
    """An unexpected error must not vanish in a task: the process ends with it."""
    await second_shop(radio.shop)
    radio.streams.errors = {OTHER: RuntimeError("a bug")}
    with pytest.raises(ExceptionGroup) as told:
        async with asyncio.timeout(10):
            await radio.listener(Timing()).run(radio.stop)
    assert told.group_contains(RuntimeError, match="a bug")
    assert radio.streams.open == 0, "the other streams are closed"


async def test_an_account_without_a_cursor_is_no_silence_either(radio: Radio) -> None:
    await radio.shop.execute("DELETE FROM cursors")
    with pytest.raises(ExceptionGroup, match="unhandled"):
        await radio.listener().run(radio.stop)
    await radio.shop.execute(
        "INSERT INTO cursors (stream, account, position, updated_at)"
        " SELECT 'live:' || account, account, start_position, created_at FROM accounts"
    )


async def test_lesson_17_progress_is_a_settled_batch_and_also_that_of_a_quiet_account(
    radio: Radio,
) -> None:
    radio.progress = progress = Beats()
    async with radio.on():
        await radio.streams.opens(1)
        assert progress.beats == [], "an open connection is no progress"
        radio.streams.quiet[ACCOUNT] = Position.after_ledger(1100)
        await radio.streams.grow()
        await radio.streams.settled(ACCOUNT, Position.after_ledger(1100))
        assert progress.beats == [f"listen:{ACCOUNT}"]
    assert await radio.shop.rows("SELECT position FROM cursors") == [(Position.after_ledger(1100),)]

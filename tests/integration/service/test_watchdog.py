"""The watchdog over real followers on a real database: what hangs is cut off and begun anew."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random

import pytest

from paywatch.domain.ledger import Batch, Position
from paywatch.service.follow import Follower, Timing
from paywatch.service.gauges import Gauges, InstanceState
from paywatch.service.listen import Listener
from paywatch.service.settle import Order, Settled, Settler
from paywatch.service.streams import Streams
from paywatch.service.watchdog import NothingHelps, Watchdog
from paywatch.telemetry import Progress
from paywatch.telemetry.metrics import STREAM_STATES
from support import ACCOUNT, NOW, Shop, make_credit
from support.elections import election_on
from support.streams import Streams as Ledger
from support.streams import never_read

QUICK = Timing(accounts_s=0.01, stopped_s=0.01)


@dataclass
class Upstream:
    """A Horizon's root, whose tip moves with the clock."""

    now: datetime = NOW
    moves: bool = True

    @property
    def latest(self) -> int:
        return 2000 + (int((self.now - NOW).total_seconds()) // 5 if self.moves else 0)

    @property
    def closed_at(self) -> datetime:
        return self.now if self.moves else NOW

    elder: int = 1

    async def root(self) -> "Upstream":
        return self

    def states(self) -> list[InstanceState]:
        return []


@dataclass
class Hanging:
    """A source that hangs the first `times` that it is read, then reads the ledger."""

    times: int
    ledger: Ledger = field(default_factory=Ledger)
    hangs: asyncio.Event = field(default_factory=asyncio.Event)

    async def batches(self, account: str, after: Position) -> AsyncGenerator[Batch, None]:
        self.times -= 1
        if self.times >= 0:
            self.hangs.set()
            await asyncio.Event().wait()
        async for batch in self.ledger.batches(account, after):
            yield batch


class Deadlocked(Settler):
    """A settling whose first try never comes back, with its transaction open."""

    hangs = asyncio.Event()

    async def settle(
        self,
        order: Order,
        at_work: Callable[[], None] = lambda: None,
        stop: asyncio.Event | None = None,
    ) -> Settled:
        if self.hangs.is_set():
            return await super().settle(order, at_work, stop)
        async with self.engine.begin() as conn:
            assert order.claim is not None
            await conn.exec_driver_sql(
                f"UPDATE cursors SET updated_at = now() WHERE stream = '{order.claim.stream}'"
            )
            self.hangs.set()
            await asyncio.Event().wait()
        raise AssertionError


@dataclass
class House:
    """A shop, its listener, and gauges with a watchdog, all on one clock that the test moves."""

    shop: Shop
    source: Hanging
    settler: Settler
    upstream: Upstream = field(default_factory=Upstream)
    progress: Progress = field(default_factory=Progress)
    streams: Streams = field(default_factory=Streams)

    def __post_init__(self) -> None:
        metrics, clock = self.shop.metrics, self.clock
        watchdog = Watchdog(self.streams, metrics, clock)
        self.gauges = Gauges(self.shop.engine, self.upstream, metrics, clock, watchdog)

    def clock(self) -> datetime:
        return self.upstream.now

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        follower = Follower(
            self.shop.engine,
            election_on(self.shop.engine, self.clock, self.progress),
            self.source.ledger.heard(replace(self.settler, clock=self.clock)),
            self.clock,
            Random(1),
            self.shop.metrics,
            self.progress,
            QUICK,
            self.streams,
        )
        running = asyncio.create_task(
            Listener(follower, self.source, never_read(follower)).run(stop)
        )
        try:
            async with asyncio.timeout(30):
                yield
                stop.set()
                await running
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await running

    async def later(self, seconds: float) -> str:
        """Let that time pass and look; give the state shown."""
        self.upstream.now += timedelta(seconds=seconds)
        await self.gauges.run_once()
        name, value = "paywatch_stream_state", self.shop.metrics.registry.get_sample_value
        return next(s for s in STREAM_STATES if value(name, {"stream": ACCOUNT, name: s}))


async def test_lesson_13_a_reader_that_never_returns_is_begun_anew_and_the_payment_is_settled(
    shop: Shop,
) -> None:
    await shop.add_session(1)
    house = House(shop, Hanging(times=1), shop.settler)
    async with house.listening():
        await house.source.hangs.wait()
        credit = make_credit(ledger=1001)
        await house.source.ledger.grow(credit)
        assert await house.later(0) == "catching_up"
        assert await house.later(95) == "stalled"
        await house.source.ledger.settled(ACCOUNT, credit.operation_id)
        stale = house.progress.stale(house.clock())
        assert f"listen:{ACCOUNT}" not in stale, "systemd had no reason to end it"
    assert await shop.session(1) == ("paid", 100)


async def test_lesson_13_a_settlement_that_hangs_is_cut_off_and_done_by_the_next(
    shop: Shop,
) -> None:
    """Its transaction holds the cursor's row: the next claim has to wait for its end."""
    await shop.add_session(1)
    settler = Deadlocked(shop.engine, shop.metrics, lambda: NOW, Random(1))
    house = House(shop, Hanging(times=0), settler)
    async with house.listening():
        credit = make_credit(ledger=1001)
        await house.source.ledger.grow(credit)
        await settler.hangs.wait()
        await house.later(0)
        assert await house.later(95) == "stalled"
        await house.source.ledger.settled(ACCOUNT, credit.operation_id)
    assert await shop.session(1) == ("paid", 100)


async def test_a_reader_that_hangs_each_time_ends_the_process(shop: Shop) -> None:
    house = House(shop, Hanging(times=100), shop.settler)
    async with house.listening():
        await house.source.hangs.wait()
        await house.later(0)
        for _ in range(3):
            house.source.hangs.clear()
            assert await house.later(95) == "stalled"
            await house.source.hangs.wait()
        with pytest.raises(NothingHelps):
            await house.later(95)


async def test_a_reader_that_hangs_while_the_tip_stands_is_left_alone(shop: Shop) -> None:
    """Upstream is behind: there is nothing to read, and nobody can tell that it hangs."""
    house = House(shop, Hanging(times=1), shop.settler, Upstream(moves=False))
    async with house.listening():
        await house.source.hangs.wait()
        for _ in range(10):
            assert await house.later(95) == "catching_up"
        assert house.source.times == 0, "it was not begun anew"

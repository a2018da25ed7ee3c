"""Several instances of one network, each wrong in its way: nothing is lost by changing over."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from paywatch.domain.announcement import TxState
from paywatch.domain.ledger import Batch, Position
from paywatch.errors import HistoryGap, HorizonUnavailable, NetworkReset, WrongNetwork
from paywatch.horizon import documents
from paywatch.horizon.breaker import BreakerState
from paywatch.horizon.pool import HorizonPool
from paywatch.horizon.timing import Timing
from paywatch.sim import (
    Fault,
    FaultSettings,
    HorizonSettings,
    LedgerSettings,
    Moment,
    NetworkSettings,
    SimNetwork,
    StreamSettings,
    Wallet,
)
from paywatch.sim.faults import FaultRule, Faults
from support.horizons import pool_of

HOUR = 10  # ledgers that are six minutes apart, here
SETTINGS = NetworkSettings(
    horizon=HorizonSettings(stream=StreamSettings(update_s=0.0, connection_s=0.5))
)


def hurried() -> float:
    """A clock on which the pauses of a breaker are short."""
    return 10 * time.monotonic()


@pytest.fixture
def quick(fast: Timing) -> Timing:
    """Looks at all instances all the time, and returns to a preferred one at once."""
    return replace(fast, look_s=0.01, return_s=0.0)


@dataclass
class Watch:
    """A live stream of a shop through the pool, and what it has brought."""

    network: SimNetwork
    alice: Wallet
    shop: Wallet
    pool: HorizonPool
    start: Position
    paid: int = 0
    batches: list[Batch] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self) -> None:
        stream = self.pool.batches(self.shop.account_id, self.start)
        async with aclosing(stream) as batches:
            async for batch in batches:
                assert batch.after == (self.batches[-1].upto if self.batches else self.start)
                assert batch.upto >= batch.after
                self.batches.append(batch)
                self.news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                self.news.clear()
                await self.news.wait()

    async def pay(self, count: int = 1) -> None:
        numbers = range(self.paid + 1, self.paid + count + 1)
        self.paid += count
        await self.network.pay(
            *[self.alice.pay(self.shop.account_id, f"0.{n:07d}") for n in numbers]
        )

    @property
    def amounts(self) -> list[int]:
        records = [record for batch in self.batches for record in batch.records]
        return [credit.amount for record in records for credit in record.credits]

    @property
    def tip(self) -> Position:
        return Position.after_ledger(self.network.ledger.latest.sequence)

    async def all_read(self) -> None:
        """Wait until everything was read and confirmed by pages: once each."""
        await self.until(lambda: len(self.amounts) >= self.paid)
        await self.until(lambda: self.batches[-1].upto >= self.tip)
        assert sorted(self.amounts) == list(range(1, self.paid + 1))


@asynccontextmanager
async def watching(
    timing: Timing, *others: dict[str, Any], lag: int = 0, ledgers: int = 0
) -> AsyncIterator[Watch]:
    """A stream of two or more instances: the network's own is preferred."""
    async with SimNetwork(SETTINGS) as network:
        alice, shop = await network.fund("alice", "shop")
        start = Position.after_ledger(network.ledger.latest.sequence)
        for _ in range(ledgers):
            await network.close_ledger(network.ledger.latest.closed_at + timedelta(minutes=6))
        network.horizon.view.lag = lag
        urls = [network.url] + [(await network.add_horizon(**other)).url for other in others]
        async with pool_of(network.passphrase, *urls, timing=timing, clock=hurried) as pool:
            watch = Watch(network, alice, shop, pool, start)
            task = asyncio.create_task(watch.follow())
            try:
                yield watch
                assert not task.done(), task.exception()
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


def instance(network: SimNetwork, index: int) -> Any:
    return network._instances[index]


async def test_an_instance_that_dies_in_mid_burst_loses_nothing(quick: Timing) -> None:
    async with watching(quick, {}) as watch:
        await watch.pay(150)
        await watch.until(lambda: len(watch.amounts) > 0)
        await watch.network.horizon.stop()
        await watch.pay(150)
        await watch.all_read()
        assert watch.pool.states()[0].breaker != "closed"
        await watch.until(lambda: watch.pool.states()[1].serves)
        await watch.network.horizon.start()
        await watch.pay(20)
        await watch.all_read()
        await watch.until(lambda: watch.pool.states()[0].serves)
        await watch.pay(20)
        await watch.all_read()
        assert watch.pool.states()[0].breaker == "closed"


async def test_a_preferred_instance_that_lags_by_an_hour_is_not_read_from(quick: Timing) -> None:
    async with watching(quick, {}, lag=HOUR, ledgers=HOUR + 10) as watch:
        await watch.pay(5)
        await watch.all_read()
        seen = list(instance(watch.network, 0).requests)
        assert {request.path for request in seen} == {"/"}, "looked at, and no more"


async def test_a_lagging_instance_never_moves_a_cursor_back_nor_makes_a_position_look_final(
    quick: Timing,
) -> None:
    """All that is left is an instance that lags by an hour: it claims nothing of that hour."""
    async with watching(quick, {"lag": HOUR}, ledgers=HOUR + 10) as watch:
        await watch.pay(5)
        await watch.all_read()
        await watch.network.horizon.stop()
        lagging = instance(watch.network, 1)
        position, count = watch.batches[-1].upto, len(watch.batches)
        await watch.pay(5)
        async with asyncio.timeout(60):
            await lagging.requests.wait_for(lambda seen: seen.path != "/", 5)
        await watch.until(lambda: len(watch.batches) > count + 3)
        assert watch.batches[-1].upto == position
        assert all(batch.closed_at is None for batch in watch.batches[count + 1 :])
        await watch.network.horizon.start()
        await watch.all_read()


async def test_the_page_of_another_instance_than_the_one_with_the_stream_skips_nothing(
    quick: Timing,
) -> None:
    """The stream of one has shown what the other, a little behind, has not got yet."""
    async with watching(quick, {"lag": 3}, ledgers=10) as watch:
        for _ in range(10):
            watch.network.faults.script([Fault.SERVER_ERROR] * 2, Moment.PAGE)
            await watch.pay(3)
            await watch.until(lambda: len(watch.amounts) >= watch.paid)
            watch.network.faults.stop()
        await watch.all_read()


async def test_one_that_is_short_of_history_leaves_it_to_another(quick: Timing) -> None:
    async with watching(quick, {}, ledgers=10) as watch:
        watch.network.horizon.view.keep_from(watch.network.ledger.latest.sequence)
        await watch.pay(5)
        await watch.all_read()


async def test_a_gap_is_raised_when_all_that_answer_have_it_and_each_is_named(
    quick: Timing,
) -> None:
    async with SimNetwork() as network:
        for _ in range(5):
            await network.close_ledger()
        network.horizon.view.keep_from(4)
        other = await network.add_horizon(elder=5)
        dead = await network.add_horizon()
        await dead.stop()
        urls = (network.url, other.url, dead.url)
        async with pool_of(network.passphrase, *urls, timing=quick) as pool:
            account, after = network.root.account_id, Position.after_ledger(2)
            with pytest.raises(HorizonUnavailable):  # the dead one may have them: once more
                await pool.page(account, after)
            while pool.states()[2].breaker == "closed":
                await asyncio.gather(pool.page(account, after), return_exceptions=True)
            with pytest.raises(HistoryGap, match=r"1: .* from 4 only.*; 2: .* from 5 only"):
                await pool.page(account, after)
            assert (await pool.page(account, Position.after_ledger(3))).upto > after


async def test_a_reset_is_raised_although_an_instance_still_serves_the_history_that_ended(
    quick: Timing,
) -> None:
    async with SimNetwork() as network:
        old = await network.add_horizon()
        for _ in range(20):
            await network.close_ledger()
        async with pool_of(network.passphrase, network.url, old.url, timing=quick) as pool:
            account, tip = network.root.account_id, await pool.tip()
            await pool.page(account, tip)
            ended = old.view.ledger
            network.reset()
            old.view.ledger = ended
            for _ in range(15):
                await network.close_ledger()
            await pool.root()
            with pytest.raises(NetworkReset):
                await pool.page(account, tip)


async def test_one_that_is_so_far_behind_that_it_looks_reset_is_skipped(
    quick: Timing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "RESET_MARGIN_LEDGERS", 5)
    async with watching(quick, {}, ledgers=12) as watch:
        await watch.pay(3)
        await watch.all_read()
        watch.network.horizon.view.lag = 10
        await watch.pay(3)
        await watch.all_read()


async def test_an_instance_of_another_network_is_excluded_and_said_so(quick: Timing) -> None:
    other = NetworkSettings(ledger=LedgerSettings(passphrase="Elsewhere"))
    async with SimNetwork() as network, SimNetwork(other) as elsewhere:
        (shop,) = await network.fund("shop")
        urls = (elsewhere.url, network.url)
        with capture_logs() as logs:
            async with pool_of(network.passphrase, *urls, timing=quick) as pool:
                await pool.check_network()
                for _ in range(5):
                    assert (await pool.page(shop.account_id, Position(0))).read == 1
                assert [state.breaker for state in pool.states()] == ["excluded", "closed"]
        (said,) = [line for line in logs if line["event"] == "horizon_excluded"]
        assert (said["log_level"], said["horizon"]) == ("error", "1")
        async with pool_of(network.passphrase, elsewhere.url, elsewhere.url, timing=quick) as pool:
            for refused in (pool.check_network(), pool.page(shop.account_id, Position(0))):
                with pytest.raises(WrongNetwork, match="Elsewhere"):
                    await refused
        async with pool_of(
            network.passphrase, elsewhere.url, "http://127.0.0.1:9", timing=quick
        ) as p:
            for _ in range(10):  # the other may be the right one, however often it has failed
                with pytest.raises(HorizonUnavailable):
                    await p.check_network()


@pytest.mark.parametrize(
    "fault",
    [
        Fault.HTML,
        Fault.RATE_LIMITED_BARE,
        Fault.UNAVAILABLE,
        Fault.GATEWAY_TIMEOUT,
        Fault.MALFORMED,
    ],
)
async def test_an_instance_that_answers_nothing_usable_is_changed_from(
    quick: Timing, fault: Fault
) -> None:
    async with watching(quick, {}) as watch:
        await watch.pay(3)
        await watch.all_read()
        watch.network.faults.settings = FaultSettings((FaultRule(fault, 1.0),))
        for _ in range(5):
            await watch.pay(20)
            await watch.until(lambda: len(watch.amounts) >= watch.paid)
        await watch.all_read()
        await watch.until(lambda: watch.pool.states()[1].serves)


async def test_an_instance_whose_streams_are_cut_while_its_pages_are_well_is_changed_from(
    quick: Timing,
) -> None:
    async with watching(quick, {}) as watch:
        await watch.pay(3)
        await watch.all_read()
        cuts = FaultRule(Fault.CUT, 1.0, Moment.EVENT)
        watch.network.faults.settings = FaultSettings((cuts,))
        while watch.pool.states()[0].breaker == "closed":
            await watch.pay(2)
            await watch.until(lambda: len(watch.amounts) >= watch.paid)
        await watch.all_read()


@pytest.mark.parametrize("seed", range(4))
async def test_everything_at_once_at_every_instance_loses_nothing(seed: int, quick: Timing) -> None:
    faults = replace(FaultSettings.everything(0.05, seed), retry_after_s=0, delay_s=0.01)
    hasty = replace(quick, get_s=0.3, first_event_s=0.3, silence_s=0.5)
    others: list[dict[str, Any]] = [
        {"lag": 3, "faults": Faults(replace(faults, seed=seed + 100))},
        {"faults": Faults(replace(faults, seed=seed + 200))},
    ]
    async with watching(hasty, *others) as watch:
        watch.network.faults.settings = faults
        for round_ in range(24):
            await watch.pay((seed + round_) % 7)
            await watch.until(lambda: len(watch.amounts) >= watch.paid - 10)
        for one in watch.network._instances:
            one.faults.stop()
        await watch.network.close_ledger()
        await watch.all_read()


async def test_a_spent_budget_moves_the_streams_to_the_next_instance(fast: Timing) -> None:
    now = [0.0]
    timing = replace(fast, look_s=1e9)
    async with SimNetwork() as network:
        (shop,) = await network.fund("shop")
        other = await network.add_horizon()
        async with pool_of(
            network.passphrase, network.url, other.url, timing=timing, per_hour=3600,
            clock=lambda: now[0],
        ) as pool:  # fmt: skip
            for _ in range(60):
                await pool.page(shop.account_id, Position(0))
            assert pool.states()[1].serves
            assert pool.polite().requests_left == 0
            now[0] += 30  # enough to ask the first one again, not to go back to it
            await pool.page(shop.account_id, Position(0))
            assert pool.states()[1].serves
            now[0] += 3600
            await pool.page(shop.account_id, Position(0))
            now[0] += timing.return_s
            await pool.page(shop.account_id, Position(0))
            assert pool.states()[0].serves


async def test_a_transaction_is_looked_for_at_the_others_too(quick: Timing) -> None:
    async with SimNetwork() as network:
        alice, shop = await network.fund("alice", "shop")
        (paid,) = await network.pay(alice.pay(shop.account_id, "3"))
        network.horizon.view.lag = 1
        other = await network.add_horizon()
        async with pool_of(network.passphrase, network.url, other.url, timing=quick) as pool:
            trace = await pool.trace(paid.hash, {shop.account_id})
            assert trace.state is TxState.SUCCEEDED
            unknown = await pool.trace("ab" * 32, set())
            assert unknown.state is TxState.UNKNOWN
            assert unknown.tip_closed_at == network.ledger.latest.closed_at
            tip = network.ledger.latest.sequence
            assert await pool.ledger_hash(tip) == network.ledger.latest.hash
            assert await pool.ledger_hash(tip + 1) is None


async def test_the_tip_is_the_one_of_the_instance_that_is_furthest(quick: Timing) -> None:
    async with SimNetwork() as network:
        for _ in range(5):
            await network.close_ledger()
        network.horizon.view.lag = 4
        other = await network.add_horizon()
        async with pool_of(network.passphrase, network.url, other.url, timing=quick) as pool:
            assert (await pool.root()).latest == network.ledger.latest.sequence
            assert await pool.tip() == Position.after_ledger(network.ledger.latest.sequence)
            await network.horizon.stop()
            await other.stop()
            with pytest.raises(HorizonUnavailable, match=r"1: .*; 2: "):
                await pool.root()


async def test_an_instance_that_hangs_holds_up_nobody_for_long(hasty: Timing) -> None:
    async with SimNetwork() as network:
        (shop,) = await network.fund("shop")
        hangs = Faults(FaultSettings((FaultRule(Fault.HANG, 1.0),)))
        other = await network.add_horizon(faults=hangs)
        timing = replace(hasty, look_s=0.01, get_s=30.0)
        async with pool_of(network.passphrase, other.url, network.url, timing=timing) as pool:
            async with asyncio.timeout(20):
                await pool.root()
        async with pool_of(
            network.passphrase, other.url, network.url, timing=replace(hasty, look_s=0.01)
        ) as pool:
            while pool.states()[0].breaker != BreakerState.OPEN:
                assert (await pool.page(shop.account_id, Position(0))).read == 1
            before = len(other.requests)
            for _ in range(5):
                assert (await pool.page(shop.account_id, Position(0))).read == 1
            assert len(other.requests) == before, "its breaker is open: it is left alone"

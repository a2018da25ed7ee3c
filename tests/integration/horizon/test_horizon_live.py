"""Whatever Horizon does, the live stream brings each operation once, in order, none lost."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import pytest

from paywatch.domain.ledger import Batch, Position
from paywatch.errors import HistoryGap, NetworkReset
from paywatch.horizon.pool import HorizonPool
from paywatch.horizon.timing import Timing
from paywatch.sim import (
    Fault,
    FaultSettings,
    HorizonSettings,
    Moment,
    NetworkSettings,
    SimNetwork,
    StreamSettings,
    Wallet,
)
from paywatch.sim.faults import WHERE
from support.horizons import pool_of

AT_ONCE = StreamSettings(update_s=0.0)


class Watch:
    """A live stream of a shop in the background, and what it has brought."""

    def __init__(self, network: SimNetwork, alice: Wallet, shop: Wallet) -> None:
        self.network, self.alice, self.shop = network, alice, shop
        self.paid = 0
        self.batches: list[Batch] = []
        self.reasons: list[str] = []
        self._news = asyncio.Event()

    async def follow(self, source: HorizonPool, after: Position) -> None:
        async with aclosing(source.batches(self.shop.account_id, after)) as batches:
            async for batch in batches:
                self.batches.append(batch)
                self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def stream_is_open(self) -> None:
        """Wait for a stream that has been answered by its first byte."""
        async with asyncio.timeout(60):
            await self.network.requests.wait_for(lambda seen: seen.stream and seen.status == 200)

    async def pay(self, count: int = 1) -> None:
        """Pay 1, 2, 3, … stroops, each in a transaction of its own, in one ledger."""
        numbers = range(self.paid + 1, self.paid + count + 1)
        self.paid += count
        envelopes = [self.alice.pay(self.shop.account_id, f"0.{n:07d}") for n in numbers]
        await self.network.pay(*envelopes)

    async def all_read(self) -> None:
        """Wait until everything was read, and prove it: once each, in order, confirmed."""
        await self.until(lambda: len(self.amounts()) >= self.paid)
        assert self.amounts() == list(range(1, self.paid + 1))
        last = self.batches[-1].upto
        tip = Position.after_ledger(self.network.ledger.latest.sequence)
        await self.until(lambda: self.batches[-1].upto >= tip)
        assert self.amounts() == list(range(1, self.paid + 1))
        assert last <= self.batches[-1].upto
        self.keeps_its_contract()

    def amounts(self) -> list[int]:
        return [
            credit.amount
            for batch in self.batches
            for record in batch.records
            for credit in record.credits
        ]

    def keeps_its_contract(self) -> None:
        for before, batch in zip(self.batches, self.batches[1:], strict=False):
            assert batch.after == before.upto
        for batch in self.batches:
            assert batch.upto >= batch.after
            assert len(batch.records) <= batch.read <= 200
            if batch.upto == batch.after:  # early: what only a page may say is not said
                assert not (batch.records and batch.closed_at)


@asynccontextmanager
async def watching(
    timing: Timing,
    *,
    settings: NetworkSettings | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncIterator[Watch]:
    base = settings or NetworkSettings(horizon=HorizonSettings(stream=AT_ONCE))
    async with SimNetwork(replace(base, faults=FaultSettings(retry_after_s=0))) as network:
        alice, shop = await network.fund("alice", "shop")
        network.faults.settings = base.faults
        watch = Watch(network, alice, shop)
        async with pool_of(
            network.passphrase,
            network.url,
            timing=timing,
            rng=random.Random(1),
            on_reconnect=watch.reasons.append,
            sleep=sleep,
        ) as source:
            start = Position.after_ledger(network.ledger.latest.sequence)
            task = asyncio.create_task(watch.follow(source, start))
            try:
                yield watch
                assert not task.done()
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


STREAM_FAULTS = {
    "end_of_stream": (Fault.END_OF_STREAM, "cut"),
    "cut_in_mid_event": (Fault.CUT, None),
    "malformed_json": (Fault.MALFORMED, "malformed"),
    "event_error": (Fault.ERROR_EVENT, "stream_error"),
    "replay": (Fault.REPLAY, None),
    "delay": (Fault.DELAY, None),
}


@pytest.mark.parametrize(("fault", "reason"), STREAM_FAULTS.values(), ids=STREAM_FAULTS)
async def test_lesson_14_a_stream_survives(fault: Fault, reason: str | None, fast: Timing) -> None:
    async with watching(replace(fast, reconcile_s=0.5)) as watch:
        await watch.stream_is_open()
        await watch.pay()
        await watch.until(lambda: len(watch.amounts()) == 1)
        struck = watch.network.faults.next(fault, Moment.EVENT)
        await watch.pay(5)
        async with asyncio.timeout(60):
            await struck.consumed.wait()
        await watch.pay(5)
        await watch.all_read()
        if reason is not None:
            assert reason in watch.reasons


async def test_lesson_7_a_hanging_stream_loses_nothing_and_delays_little(hasty: Timing) -> None:
    async with watching(hasty) as watch:
        await watch.stream_is_open()
        struck = watch.network.faults.next(Fault.HANG, Moment.EVENT)
        await watch.pay(5)
        async with asyncio.timeout(60):
            await struck.consumed.wait()
        await watch.all_read()  # by pages, while the connection hangs
        await watch.until(lambda: "timeout" in watch.reasons)
        await watch.pay(5)
        await watch.all_read()


PAGE_FAULTS = {
    "cut": (Fault.CUT, "connection"),
    "malformed_json": (Fault.MALFORMED, "malformed"),
    "404_though_it_has_history": (Fault.NOT_FOUND, None),
    "429_with_retry_after": (Fault.RATE_LIMITED, "status_429"),
    "429_without_retry_after": (Fault.RATE_LIMITED_BARE, "status_429"),
    "500": (Fault.SERVER_ERROR, "status_500"),
    "503_plain_text": (Fault.UNAVAILABLE, "status_503"),
    "504_without_a_body": (Fault.GATEWAY_TIMEOUT, "status_504"),
    "html_instead_of_json": (Fault.HTML, "not_json"),
    "hanging_connection": (Fault.HANG, "timeout"),
}


REQUEST_FAULTS = {
    f"{moment}-{name}": (moment, *what)
    for name, what in PAGE_FAULTS.items()
    for moment in (Moment.PAGE, Moment.STREAM)
    if moment in WHERE[what[0]]
}


@pytest.mark.parametrize(("moment", "fault", "reason"), REQUEST_FAULTS.values(), ids=REQUEST_FAULTS)
async def test_lesson_14_a_request_survives(
    moment: Moment, fault: Fault, reason: str | None, fast: Timing, hasty: Timing
) -> None:
    async with watching(hasty if fault is Fault.HANG else fast) as watch:
        await watch.pay(5)
        await watch.all_read()
        faults = [watch.network.faults.next(fault, moment) for _ in range(3)]
        watch.network.faults.next(Fault.END_OF_STREAM, Moment.EVENT)
        await watch.pay(5)
        for struck in faults:
            async with asyncio.timeout(60):
                await watch.pay()
                await struck.consumed.wait()
        await watch.all_read()
        if reason is not None:
            assert reason in watch.reasons


async def test_an_account_that_is_not_on_the_ledger_gets_on_and_is_found_when_it_is_funded(
    fast: Timing,
) -> None:
    horizon = HorizonSettings(stream=AT_ONCE)
    async with SimNetwork(NetworkSettings(horizon=horizon)) as network:
        fresh = network.wallet("fresh")
        watch = Watch(network, network.root, fresh)
        async with pool_of(
            network.passphrase, network.url, timing=fast, on_reconnect=watch.reasons.append
        ) as source:
            task = asyncio.create_task(watch.follow(source, await source.tip()))
            await watch.until(lambda: bool(watch.batches))
            tip = Position.after_ledger((await network.close_ledger()).sequence)
            await watch.until(lambda: watch.batches[-1].upto >= tip)
            last = watch.batches[-1]
            assert (last.unfunded, last.closed_at) == (True, network.ledger.latest.closed_at)
            assert not any(seen.stream for seen in network.requests), "it has no stream to ask for"
            await network.fund("fresh", lumens="5")
            await watch.until(lambda: watch.amounts() == [50_000_000])
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_backlog_is_read_by_pages_then_the_stream_follows(fast: Timing) -> None:
    slow = replace(fast, reconcile_s=10.0)
    async with watching(slow) as watch:
        await watch.pay(90)
        for _ in range(4):
            await watch.pay(90)
        await watch.until(lambda: len(watch.amounts()) >= 450)
        await watch.stream_is_open()
        await watch.pay(3)
        await watch.until(lambda: len(watch.amounts()) >= 453)
        assert watch.amounts() == list(range(1, 454))
        watch.keeps_its_contract()


async def test_an_ordinary_goodbye_is_followed_without_a_wait(fast: Timing) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    slow = replace(fast, reconcile_s=10.0)
    async with watching(slow, sleep=sleep) as watch:
        await watch.stream_is_open()
        for _ in range(5):  # the stream ends after 200 records
            await watch.pay(50)
        await watch.until(lambda: len(watch.amounts()) >= 250)
        assert watch.amounts() == list(range(1, 251))
        assert watch.reasons == ["closed"]
        assert waits == []


async def test_retry_after_is_honoured(fast: Timing) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    patient = replace(fast, retry_after_cap_s=3600.0, reconcile_s=0.05)
    async with watching(patient, sleep=sleep) as watch:
        watch.network.faults.settings = FaultSettings(retry_after_s=77)
        await watch.stream_is_open()
        watch.network.faults.next(Fault.RATE_LIMITED, Moment.PAGE)
        await watch.until(lambda: "status_429" in watch.reasons)
        await watch.pay()
        await watch.all_read()
        assert 77.0 <= sum(waits) <= 78.0
        assert max(waits) <= patient.beat_s
        assert len([b for b in watch.batches if not b.read and b.closed_at is None]) >= len(waits)


async def test_the_stream_is_early_and_the_page_confirms(fast: Timing) -> None:
    async with watching(replace(fast, reconcile_s=0.5)) as watch:
        await watch.stream_is_open()
        await watch.pay(3)
        await watch.until(lambda: len(watch.amounts()) == 3)
        early = [batch for batch in watch.batches if batch.records]
        for batch in early:
            assert batch.after == batch.upto < batch.records[0].operation_id
            assert batch.closed_at is None
        await watch.all_read()


async def test_a_reader_that_dies_in_between_reads_the_early_records_again(fast: Timing) -> None:
    async with watching(replace(fast, reconcile_s=5.0)) as watch:
        await watch.stream_is_open()
        await watch.pay(3)
        await watch.until(lambda: len(watch.amounts()) == 3)
        async with pool_of(watch.network.passphrase, watch.network.url, timing=fast) as source:
            again = await source.page(watch.shop.account_id, watch.batches[-1].upto)
        assert [record.credits[0].amount for record in again.records] == [1, 2, 3]


async def first_batch(network: SimNetwork, after: Position, timing: Timing) -> Batch:
    async with (
        pool_of(network.passphrase, network.url, timing=timing) as source,
        aclosing(source.batches(network.root.account_id, after)) as batches,
    ):
        return await anext(batches)


async def test_a_gap_ends_the_stream(fast: Timing) -> None:
    async with SimNetwork() as network:
        for _ in range(5):
            await network.close_ledger()
        network.horizon.view.keep_from(4)
        with pytest.raises(HistoryGap):
            await first_batch(network, Position.after_ledger(2), fast)
        batch = await first_batch(network, Position.after_ledger(3), fast)
        assert batch.after == Position.after_ledger(3)


async def test_a_reset_while_streaming_ends_the_stream(fast: Timing) -> None:
    async with SimNetwork() as network:
        for _ in range(3):
            await network.close_ledger()
        async with (
            pool_of(network.passphrase, network.url, timing=fast) as source,
            aclosing(source.batches(network.root.account_id, await source.tip())) as batches,
        ):
            await anext(batches)
            network.reset()
            with pytest.raises(NetworkReset):  # 4 ledgers back, but later
                async for _ in batches:
                    pass  # what says that the reader is at work


async def test_a_reset_ends_the_stream(fast: Timing) -> None:
    async with SimNetwork() as network:
        with pytest.raises(NetworkReset):
            await first_batch(network, Position.after_ledger(5000), fast)


async def test_an_outage_is_survived(fast: Timing) -> None:
    async with watching(fast) as watch:
        await watch.pay(2)
        await watch.all_read()
        await watch.network.horizon.stop()
        await watch.pay(5)
        await watch.network.horizon.start()
        await watch.pay(5)
        await watch.all_read()
        assert watch.reasons


@pytest.mark.parametrize("seed", range(6))
async def test_everything_at_once_loses_nothing(seed: int, fast: Timing) -> None:
    faults = FaultSettings.everything(0.05, seed)
    quick = StreamSettings(update_s=0.0, connection_s=0.2)
    settings = NetworkSettings(
        faults=replace(faults, retry_after_s=0, delay_s=0.01),
        horizon=HorizonSettings(stream=quick),
    )
    async with watching(replace(fast, get_s=0.2, first_event_s=0.2), settings=settings) as watch:
        rng = random.Random(seed)
        for _ in range(40):
            await watch.pay(rng.randint(0, 12))
            if rng.random() < 0.5:
                await watch.until(lambda: len(watch.amounts()) >= watch.paid)
        await watch.until(lambda: len(watch.amounts()) >= watch.paid)
        watch.network.faults.stop()
        tip = Position.after_ledger(watch.network.ledger.latest.sequence)
        await watch.until(lambda: watch.batches[-1].upto >= tip)
        watch.keeps_its_contract()
        assert sorted(watch.amounts()) == list(range(1, watch.paid + 1))

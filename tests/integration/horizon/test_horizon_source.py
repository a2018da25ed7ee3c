"""Pages, positions and refusals, against the simulated network."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from stellar_sdk import IdMemo

from paywatch.domain.announcement import Trace, TxState
from paywatch.domain.ledger import Memo, Position
from paywatch.errors import (
    HistoryGap,
    HorizonUnavailable,
    InvalidInput,
    NetworkReset,
    WrongNetwork,
)
from paywatch.horizon.documents import Root
from paywatch.horizon.source import HorizonSource
from paywatch.horizon.timing import Timing
from paywatch.horizon.transport import HorizonTransport
from paywatch.sim import Fault, Moment, SimNetwork, Wallet


@pytest.fixture
async def network() -> AsyncIterator[SimNetwork]:
    async with SimNetwork() as network:
        yield network


@pytest.fixture
async def source(network: SimNetwork, fast: Timing) -> AsyncIterator[HorizonSource]:
    async with HorizonSource(network.url, network.passphrase, timing=fast) as source:
        yield source


@pytest.fixture
async def alice(network: SimNetwork) -> Wallet:
    (alice,) = await network.fund("alice")
    return alice


@pytest.fixture
async def shop(network: SimNetwork) -> Wallet:
    (shop,) = await network.fund("shop")
    return shop


async def test_the_root_says_where_the_ledger_is(
    network: SimNetwork, source: HorizonSource
) -> None:
    closed = await network.close_ledger()
    root = await source.root()
    assert (root.latest, root.closed_at) == (closed.sequence, closed.closed_at)
    assert root.passphrase == network.passphrase


async def test_streams_share_a_root_for_a_while(network: SimNetwork) -> None:
    timing = Timing(root_age_s=60)
    async with HorizonSource(network.url, network.passphrase, timing=timing) as source:
        first = await source.root()
        await network.close_ledger()
        assert await source.root() is first
    assert network.requests.total == 1


@pytest.mark.parametrize("pays_again", [True, False])
async def test_a_history_that_is_cut_while_a_page_is_read_is_a_gap_and_no_silence(
    network: SimNetwork, alice: Wallet, shop: Wallet, pays_again: bool
) -> None:
    """A root that was read before does not know it: 111 of 186 payments were lost by that once."""
    after = Position.after_ledger(network.ledger.latest.sequence)
    await network.pay(alice.pay(shop.account_id, "1"))
    for _ in range(70):
        await network.close_ledger()
    timing = Timing(root_age_s=60)
    async with HorizonSource(network.url, network.passphrase, timing=timing) as source:
        await source.root()
        if pays_again:
            await network.pay(alice.pay(shop.account_id, "2"))
        network.horizon.view.keep_from(network.ledger.latest.sequence - 10)
        with pytest.raises(HistoryGap, match="use one with longer history"):
            await source.network_page({}, after)
        with pytest.raises(HistoryGap):
            await source.page(shop.account_id, after)


async def test_the_rest_of_a_ledger_that_is_cut_off_is_a_gap_too(
    network: SimNetwork, alice: Wallet, shop: Wallet
) -> None:
    """The page begins in the very next ledger: nothing but the root shows what lacks before it."""
    await network.pay(alice.pay(shop.account_id, "1"), alice.pay(shop.account_id, "2"))
    first = network.ledger.latest.sequence
    await network.pay(alice.pay(shop.account_id, "3"))
    for _ in range(70):
        await network.close_ledger()
    timing = Timing(root_age_s=60)
    async with HorizonSource(network.url, network.passphrase, timing=timing) as source:
        await source.root()
        network.horizon.view.keep_from(first + 1)
        with pytest.raises(HistoryGap):
            await source.page(shop.account_id, Position.of(first, 1, 1))


async def test_near_the_tip_and_from_ledger_to_ledger_a_page_costs_one_request(
    network: SimNetwork, alice: Wallet, shop: Wallet
) -> None:
    after = Position.after_ledger(network.ledger.latest.sequence)
    await network.pay(alice.pay(shop.account_id, "1"))
    timing = Timing(root_age_s=60)
    async with HorizonSource(network.url, network.passphrase, timing=timing) as source:
        for _ in range(80):
            await network.close_ledger()
        tip = await source.tip()
        before = network.requests.total
        await source.page(shop.account_id, after)  # far, but it begins in the next ledger
        await source.page(shop.account_id, tip)  # it is empty, but near
        assert network.requests.total == before + 2


async def test_streams_that_wait_for_a_root_share_its_failure(
    raw_server: Any, fast: Timing
) -> None:
    """In line they would wait for one time limit each: the fourth longer than a watchdog allows."""
    busy = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 7\r\n\r\n"
    async with raw_server([busy], [busy]) as raw, HorizonSource(raw.url, "", timing=fast) as source:
        failures: list[Any] = await asyncio.gather(
            *(source.root() for _ in range(4)), return_exceptions=True
        )
        assert len(raw.requests) == 1
        assert {(f.reason, f.retry_after) for f in failures} == {("status_503", 7.0)}
        with pytest.raises(HorizonUnavailable):
            await source.root()
        assert len(raw.requests) == 2, "who comes later asks again"


async def test_another_network_is_refused(network: SimNetwork, fast: Timing) -> None:
    async with HorizonSource(network.url, "Somewhere else", timing=fast) as source:
        for refused in (source.look(), source.tip(), source.page("G", Position(0))):
            with pytest.raises(WrongNetwork, match="PAYWATCH_NETWORK_PASSPHRASE"):
                await refused


async def test_lesson_6_a_new_account_starts_after_the_latest_ledger(
    network: SimNetwork, source: HorizonSource, alice: Wallet, shop: Wallet
) -> None:
    await network.pay(alice.pay(shop.account_id, "1"))
    tip = await source.tip()
    assert tip == Position.after_ledger(network.ledger.latest.sequence)
    await network.pay(alice.pay(shop.account_id, "2", memo=IdMemo(17)))
    batch = await source.page(shop.account_id, tip)
    (record,) = batch.records
    (credit,) = record.credits
    assert (credit.amount, credit.memo, credit.payer) == (
        20_000_000,
        Memo.of_id(17),
        alice.account_id,
    )
    assert (batch.after, batch.upto, batch.read) == (tip, record.operation_id, 1)
    assert batch.closed_at == network.ledger.latest.closed_at


async def test_pages_follow_one_another_to_the_tip(
    network: SimNetwork, source: HorizonSource, alice: Wallet, shop: Wallet
) -> None:
    start = await source.tip()
    for _ in range(5):
        await network.pay(*(alice.pay(shop.account_id, "1") for _ in range(90)))
    sizes: list[int] = []
    position, found = start, 0
    while not sizes or sizes[-1]:
        batch = await source.page(shop.account_id, position)
        assert batch.after == position
        sizes.append(batch.read)
        found += sum(len(record.credits) for record in batch.records)
        position = batch.upto
    assert sizes == [200, 200, 50, 0]
    assert found == 450
    assert position == await source.tip()


@pytest.mark.parametrize(("kib", "fit"), [(6, 1), (12, 2), (90, 20)])  # a record has 4 KiB
async def test_records_too_large_for_one_page_are_read_by_smaller_ones(
    network: SimNetwork, fast: Timing, kib: int, fit: int
) -> None:
    alice, shop = await network.fund("alice", "shop")
    position = Position.after_ledger(network.ledger.latest.sequence)
    await network.pay(*[alice.pay(shop.account_id, "1") for _ in range(25)])
    transport = HorizonTransport(fast, max_page_bytes=kib << 10)
    sizes: list[int] = []
    async with HorizonSource(network.url, network.passphrase, transport, timing=fast) as source:
        while (page := await source.read_page(shop.account_id, position)).records:
            sizes.append(len(page.records))
            assert page.is_full or sum(sizes) == 25, "there is more at once"
            position = page.upto
    assert (sum(sizes), max(sizes)) == (25, fit)


async def test_on_a_slow_link_pages_become_smaller_until_they_arrive_and_then_grow_again(
    network: SimNetwork, source: HorizonSource, shop: Wallet, hasty: Timing
) -> None:
    start = await source.tip()
    async with HorizonSource(network.url, network.passphrase, timing=hasty) as slow:
        for _ in range(2):
            network.faults.next(Fault.HANG, Moment.PAGE, "payments")
            with pytest.raises(HorizonUnavailable):
                await slow.read_page(shop.account_id, start)
        for _ in range(3):
            await slow.read_page(shop.account_id, start)
    asked = [r.params["limit"] for r in network.requests if r.path.endswith("/payments")]
    assert asked == ["200", "20", "2", "4", "8"]


async def test_polite_reading_shares_what_the_instance_said_of_itself(
    network: SimNetwork, shop: Wallet
) -> None:
    timing = Timing(root_age_s=60)
    async with HorizonSource(network.url, network.passphrase, timing=timing) as source:
        await source.tip()
        assert (await source.polite().page(shop.account_id, Position(0))).read == 1
        assert [r.path for r in network.requests].count("/") == 1
        assert source.polite().budget is source.budget


async def test_an_outgoing_payment_is_read_and_holds_nothing(
    network: SimNetwork, source: HorizonSource, alice: Wallet, shop: Wallet
) -> None:
    start = await source.tip()
    await network.pay(shop.pay(alice.account_id, "1"))
    batch = await source.page(shop.account_id, start)
    assert (batch.read, batch.records) == (1, ())


async def test_an_empty_page_moves_to_the_tip_that_was_known_before_it(
    network: SimNetwork, source: HorizonSource, shop: Wallet
) -> None:
    start = await source.tip()
    closed = await network.close_ledger()
    batch = await source.page(shop.account_id, start)
    assert (batch.upto, batch.closed_at) == (
        Position.after_ledger(closed.sequence),
        closed.closed_at,
    )


async def test_the_tip_is_asked_for_before_the_page(
    network: SimNetwork, source: HorizonSource, alice: Wallet, shop: Wallet
) -> None:
    start = await source.tip()
    ask_root = source.root

    async def pay_and_ask() -> Root:
        await network.pay(alice.pay(shop.account_id, "1"))
        return await ask_root()

    source.root = pay_and_ask  # type: ignore[method-assign]  # a ledger closes at this moment
    batch = await source.page(shop.account_id, start)
    assert len(batch.records) == 1  # the other way round it would be behind the position


async def test_an_instance_that_lags_claims_nothing(
    network: SimNetwork, shop: Wallet, fast: Timing
) -> None:
    for _ in range(3):
        await network.close_ledger()
    lagging = await network.add_horizon(lag=2)
    after = Position.after_ledger(network.ledger.latest.sequence)
    async with HorizonSource(lagging.url, network.passphrase, timing=fast) as source:
        batch = await source.page(shop.account_id, after)
    assert (batch.upto, batch.closed_at, batch.read) == (after, None, 0)


async def test_a_cursor_older_than_the_history_is_a_gap(
    network: SimNetwork, source: HorizonSource, shop: Wallet
) -> None:
    for _ in range(5):
        await network.close_ledger()
    latest = network.ledger.latest.sequence
    network.horizon.view.keep_from(latest)
    with pytest.raises(HistoryGap, match=str(latest)):
        await source.page(shop.account_id, Position.of(latest - 1, 5, 1))
    await source.page(shop.account_id, Position.after_ledger(latest - 1))


async def test_a_tip_far_below_the_cursor_is_a_reset(source: HorizonSource, shop: Wallet) -> None:
    with pytest.raises(NetworkReset):
        await source.page(shop.account_id, Position.of(5000, 1, 1))


async def test_an_account_without_history_is_an_empty_page_if_its_entry_proves_it(
    network: SimNetwork, source: HorizonSource, alice: Wallet, shop: Wallet
) -> None:
    start = await source.tip()
    network.horizon.view.keep_from(network.ledger.latest.sequence + 1)
    closed = await network.close_ledger()
    batch = await source.page(shop.account_id, start)
    assert (batch.upto, batch.read) == (Position.after_ledger(closed.sequence), 0)
    await network.pay(alice.pay(shop.account_id, "1"))
    network.faults.next(Fault.NOT_FOUND, Moment.PAGE, "payments")
    with pytest.raises(HorizonUnavailable) as caught:
        await source.page(shop.account_id, start)
    assert caught.value.reason == "not_found"
    assert (await source.page(shop.account_id, start)).read == 1


async def test_of_an_account_that_does_not_exist_nothing_is_claimed(
    network: SimNetwork, source: HorizonSource
) -> None:
    start = await source.tip()
    await network.close_ledger()
    batch = await source.page(network.wallet("nobody").account_id, start)
    assert (batch.upto, batch.closed_at) == (start, None)


async def test_a_replayed_page_is_refused(
    network: SimNetwork, source: HorizonSource, alice: Wallet, shop: Wallet
) -> None:
    await network.pay(alice.pay(shop.account_id, "1"))
    start = await source.tip()
    await network.pay(alice.pay(shop.account_id, "2"))
    network.faults.next(Fault.REPLAY, Moment.PAGE, "payments")
    with pytest.raises(HorizonUnavailable) as caught:
        await source.page(shop.account_id, start)
    assert caught.value.reason == "order"


async def test_a_time_is_found_among_the_ledgers(
    network: SimNetwork, source: HorizonSource
) -> None:
    closed = [await network.close_ledger() for _ in range(20)]

    async def first_read_at(moment: datetime) -> int:
        return (await source.position_at(moment)).ledger + 1

    for ledger in closed:
        assert await first_read_at(ledger.closed_at) == ledger.sequence
        assert await first_read_at(ledger.closed_at + timedelta(seconds=1)) == ledger.sequence + 1
    network.horizon.view.keep_from(closed[10].sequence)
    assert await first_read_at(closed[10].closed_at) == closed[10].sequence
    with pytest.raises(HistoryGap, match=str(closed[10].sequence)):
        await source.position_at(closed[9].closed_at)


async def test_a_trace_tells_a_success_with_its_credits_by_either_hash(
    network: SimNetwork, source: HorizonSource, alice: Wallet, shop: Wallet
) -> None:
    inner = alice.pay(shop.account_id, "3")
    (applied,) = await network.pay(network.root.fee_bump(inner))
    for tx_hash in (applied.hash, inner.hash_hex()):
        trace = await source.trace(tx_hash, {shop.account_id})
        assert (trace.state, trace.ledger) == (TxState.SUCCEEDED, applied.ledger)
        assert trace.closed_at == trace.tip_closed_at == applied.closed_at
        ((credit,),) = [record.credits for record in trace.records]
        assert (credit.tx_hash, credit.amount) == (applied.hash, 30_000_000)
        assert credit.inner_tx_hash == inner.hash_hex()
    assert (await source.trace(applied.hash, {alice.account_id})).records == ()


async def test_a_trace_tells_a_failure(
    network: SimNetwork, source: HorizonSource, alice: Wallet, shop: Wallet
) -> None:
    inner = alice.pay(shop.account_id, "99999999")
    (failed,) = await network.pay(network.root.fee_bump(inner))
    for tx_hash in (failed.hash, inner.hash_hex()):
        trace = await source.trace(tx_hash, {shop.account_id})
        assert (trace.state, trace.ledger, trace.records) == (TxState.FAILED, failed.ledger, ())


async def test_a_trace_of_the_unknown_proves_its_absence_up_to_a_tip_read_before(
    network: SimNetwork, source: HorizonSource, alice: Wallet, shop: Wallet
) -> None:
    envelope = alice.pay(shop.account_id, "1")
    before = network.ledger.latest.closed_at
    ask_root = source.root

    async def ask_and_close() -> Root:
        root = await ask_root()
        await network.close_ledger()
        return root

    source.root = ask_and_close  # type: ignore[method-assign]  # a ledger closes at this moment
    unknown = await source.trace(envelope.hash_hex(), {shop.account_id})
    assert unknown == Trace(TxState.UNKNOWN, before)


@pytest.mark.parametrize("fault", [Fault.SERVER_ERROR, Fault.NOT_FOUND])
async def test_a_success_whose_payments_cannot_be_read_is_no_trace_without_credits(
    network: SimNetwork, source: HorizonSource, alice: Wallet, shop: Wallet, fault: Fault
) -> None:
    """Behind a balancer the second request may meet an instance that does not know of it yet."""
    (applied,) = await network.pay(alice.pay(shop.account_id, "1"))
    network.faults.next(fault, Moment.PAGE, "/payments")
    with pytest.raises(HorizonUnavailable):
        await source.trace(applied.hash, {shop.account_id})
    assert len((await source.trace(applied.hash, {shop.account_id})).records) == 1


async def test_a_trace_on_another_network_is_refused(network: SimNetwork, fast: Timing) -> None:
    async with HorizonSource(network.url, "Somewhere else", timing=fast) as source:
        with pytest.raises(WrongNetwork):
            await source.trace("ab" * 32, set())
        with pytest.raises(InvalidInput, match="tx_hash"):
            await source.trace("../accounts", set())

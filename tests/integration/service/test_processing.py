"""Recovery's look after sessions that wait for a transaction: each ending, and who may not end."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from stellar_sdk import Asset, IdMemo, Payment, TimeBounds
from structlog.testing import capture_logs

from paywatch.domain.checkout import SessionStatus
from paywatch.service.processing import MOST_FAILURES
from paywatch.sim import Fault, Moment
from paywatch.store import announcements
from paywatch.store.engine import create_engine
from support import NOW, Shop
from support.till import PRICE, USD, Till, nothing, open_till, session

PATIENCE_S = 300


@pytest.fixture
async def till(engine: AsyncEngine) -> AsyncIterator[Till]:
    async with open_till(engine) as till:
        await session(till)
        yield till


def repaired(till: Till, repair: str = "processing") -> float:
    labels = {"repair": repair}
    found = till.shop.metrics.registry.get_sample_value("paywatch_recovered_total", labels)
    return found or 0


async def test_a_session_is_looked_up_by_each_run_however_fresh_it_is(till: Till) -> None:
    envelope = till.payment()
    tx_hash = envelope.hash_hex()
    await till.announce(tx_hash)
    report = await till.recover()
    assert (report.settled, report.returned, report.unsearched) == (0, 0, ())
    assert till.traced == [tx_hash] * 2
    await till.network.pay(envelope)
    report = await till.recover()
    assert (report.settled, report.returned) == (1, 0)
    assert await till.shop.session() == ("paid", 100)
    assert await till.log() == [
        ("pending", "processing", "announced", "announce"),
        ("processing", "paid", "credited_in_full", f"recover:{till.shop.account}"),
    ]
    assert till.paged == [], "no history is read for that"
    assert repaired(till, "missed_credit") == 0, "that is what recovery is for, and no alarm"
    await till.recover()
    assert len(till.traced) == 3, "it waits for nothing any more"


async def test_what_fails_later_is_pending_again(till: Till) -> None:
    envelope = till.payment(amount="99999999")
    await till.announce(envelope.hash_hex())
    await till.network.pay(envelope)
    with capture_logs() as logs:
        assert (await till.recover()).returned == 1
    assert (await till.log())[-1] == ("processing", "pending", "failed", "recover")
    assert repaired(till) == 1
    [line] = [line for line in logs if line["event"] == "repaired"]
    assert (line["repair"], line["cause"]) == ("processing", "failed")


async def test_time_bounds_are_judged_by_the_ledgers_clock_alone(till: Till) -> None:
    """Ours may be hours ahead: while no ledger has closed after the bound, one may hold it."""
    until = till.network.ledger.latest.closed_at + timedelta(seconds=20)
    bounds = TimeBounds(0, int(until.timestamp()))
    payment = Payment(till.wallet.account_id, Asset.native(), PRICE)
    envelope = till.alice.build([payment], IdMemo(1), time_bounds=bounds)
    await till.announce(envelope.hash_hex(), until=until)
    till.now = NOW + timedelta(hours=9)
    await till.close_at(until)
    assert (await till.recover()).returned == 0
    await till.close_at(until + timedelta(seconds=1))
    assert (await till.recover()).returned == 1
    assert (await till.causes())[-1] == "time_bounds_passed"
    assert till.paged == []


async def test_what_leaves_no_trace_for_five_minutes_is_pending_again(till: Till) -> None:
    await till.announce(till.payment().hash_hex())
    await till.pass_time(PATIENCE_S - 1)
    assert (await till.recover()).returned == 0
    assert till.paged == []
    await till.pass_time(2)
    assert (await till.recover()).returned == 1
    assert (await till.log())[-1] == ("processing", "pending", "untraced", "recover")
    assert set(till.paged) == {till.shop.account}


async def test_a_horizon_that_stands_still_sends_nobody_back(till: Till) -> None:
    await till.announce(till.payment().hash_hex())
    till.now += timedelta(hours=9)
    await till.close_at(NOW + timedelta(seconds=PATIENCE_S))
    assert (await till.recover()).returned == 0
    assert till.paged == [], "nor does it cost pages of history in each run"


async def test_a_clock_of_ours_that_is_behind_sends_nobody_back(till: Till) -> None:
    await till.announce(till.payment().hash_hex())
    await till.close_at(NOW + timedelta(hours=9))
    assert (await till.recover()).returned == 0


async def test_a_horizon_that_is_away_sends_nobody_back_and_is_reported(till: Till) -> None:
    await till.announce(till.payment().hash_hex())
    await till.pass_time(PATIENCE_S + 1)
    till.network.faults.next(Fault.UNAVAILABLE, Moment.PAGE, "/transactions/")
    report = await till.recover()
    assert (report.returned, report.unsearched) == (0, (till.shop.account,))
    assert not report.healthy
    assert await till.shop.session() == ("processing", 0)
    assert (await till.recover()).returned == 1


async def test_after_some_failures_horizon_is_left_in_peace(till: Till) -> None:
    for number in range(2, 12):
        await session(till, number)
        await till.announce(f"{number:064x}", number)
    till.traced.clear()
    for _ in range(MOST_FAILURES):
        till.network.faults.next(Fault.UNAVAILABLE, Moment.PAGE, "/transactions/")
    assert not (await till.recover()).healthy
    assert len(till.traced) == MOST_FAILURES
    assert (await till.recover()).healthy
    assert len(till.traced) == MOST_FAILURES + 10


async def test_one_whose_answer_is_broken_does_not_hold_up_the_others(till: Till) -> None:
    await session(till, 2)
    await till.announce("ab" * 32)
    till.now += timedelta(seconds=1)
    envelope = till.payment(2)
    await till.announce(envelope.hash_hex(), 2)
    await till.network.pay(envelope)
    till.network.faults.next(Fault.MALFORMED, Moment.PAGE, "/transactions/")
    await till.recover()
    assert await till.shop.session(1) == ("processing", 0)
    assert await till.shop.session(2) == ("paid", 100)


async def test_who_announces_one_transaction_and_pays_by_another_has_paid(till: Till) -> None:
    """And the stream had missed it: pages are read before a session is given up."""
    await till.announce(till.payment(amount="0.0000200").hash_hex())
    await till.network.close_ledger()
    await till.pay()
    await till.pass_time(PATIENCE_S + 1)
    report = await till.recover()
    assert (report.settled, report.returned) == (1, 0)
    assert await till.shop.session() == ("paid", 100)
    assert repaired(till, "missed_credit") == 1


async def test_a_session_whose_pages_cannot_be_read_is_not_given_up(till: Till) -> None:
    await till.announce(till.payment().hash_hex())
    await till.pass_time(PATIENCE_S + 1)
    till.network.faults.next(Fault.HTML, Moment.PAGE, "/payments")
    report = await till.recover()
    assert (report.returned, report.unsearched) == (0, (till.shop.account,))
    assert (await till.recover()).returned == 1


async def test_what_pays_nothing_here_is_pending_again(till: Till) -> None:
    envelope = till.alice.pay(till.wallet.account_id, PRICE, USD, IdMemo(1))
    await till.announce(envelope.hash_hex())
    await till.network.pay(envelope)
    report = await till.recover()
    assert (report.settled, report.returned) == (1, 1)
    assert (await till.causes())[-1] == "pays_nothing"


async def test_one_transaction_for_several_sessions_is_looked_up_once(till: Till) -> None:
    await session(till, 2)
    both = [Payment(till.wallet.muxed(n), Asset.native(), PRICE) for n in (1, 2)]
    envelope = till.alice.build(both)
    for number in (1, 2):
        await till.announce(envelope.hash_hex(), number)
    await till.network.pay(envelope)
    till.traced.clear()
    assert (await till.recover()).settled == 2
    assert till.traced == [envelope.hash_hex()]


async def test_a_record_that_cannot_be_read_is_the_streams_business(till: Till) -> None:
    """Else each run would put it into quarantine again; the session waits for no ledger more."""
    envelope = till.payment()
    await till.announce(envelope.hash_hex())
    await till.network.pay(envelope)
    found = await till.source.trace(envelope.hash_hex(), {till.shop.account})
    unreadable = tuple(replace(r, credits=(), problem="amount: missing") for r in found.records)

    class Unreadable(Till):
        async def trace(self, *_: object) -> object:  # type: ignore[override]
            return replace(found, records=unreadable)

    broken = Unreadable(till.shop, till.network, till.source, till.wallet, till.alice)
    assert (await broken.recover()).returned == 1
    assert await till.shop.rows("SELECT * FROM quarantine") == []
    await till.settle_live()
    assert await till.shop.session() == ("paid", 100)


# Others at the same session, between the look and the write.


async def test_a_session_paid_between_the_look_and_the_write_stays_paid(
    till: Till,
) -> None:
    failed = till.payment(amount="99999999")
    await till.announce(failed.hash_hex())
    await till.network.pay(failed)
    await till.pay()
    till.meanwhile = till.settle_live
    assert (await till.recover()).returned == 0
    assert await till.shop.session() == ("paid", 100)
    assert await till.causes() == ["announced", "credited_in_full"]


@pytest.mark.parametrize("second", ["another", "the same, later"])
async def test_a_session_announced_anew_between_the_look_and_the_write_waits_on(
    till: Till, second: str
) -> None:
    failed = till.payment(amount="99999999")
    await till.announce(failed.hash_hex())
    await till.network.pay(failed)
    another = "ab" * 32

    async def announce_anew() -> None:
        till.meanwhile = nothing
        if second == "another":
            await till.announce(another)
        else:
            later = {"at": NOW + timedelta(seconds=1)}
            await till.shop.execute("UPDATE checkout_sessions SET announced_at = :at", **later)

    till.meanwhile = announce_anew
    assert (await till.recover()).returned == 0
    assert await till.shop.session() == ("processing", 0)
    assert (await till.recover()).returned == (0 if second == "another" else 1)


async def test_a_session_expires_from_processing_and_waits_for_nothing_then(till: Till) -> None:
    failed = till.payment(amount="99999999")
    await till.announce(failed.hash_hex())
    await till.network.pay(failed)

    async def expire() -> None:
        await till.shop.execute(
            "UPDATE cursors SET read_through_at = :at", at=NOW + timedelta(days=1)
        )
        assert await till.recovery.expire_overdue() == 1

    till.meanwhile = expire
    assert (await till.recover()).returned == 0
    assert await till.shop.session() == ("expired", 0)
    assert await till.causes() == ["announced", "deadline_passed"]


async def test_two_recoveries_at_the_same_moment_end_each_waiting_once(
    till: Till, database_url: str
) -> None:
    numbers = range(2, 10)
    envelopes = []
    for number in numbers:
        await session(till, number)
        amount = PRICE if number % 2 else "99999999"
        envelopes.append(till.payment(number, amount))
        await till.announce(envelopes[-1].hash_hex(), number)
    await till.network.pay(*envelopes)
    engines = [create_engine(database_url) for _ in range(2)]
    settler = till.shop.settler
    reports = await asyncio.gather(
        *(
            replace(
                till.recovery, engine=engine, settler=replace(settler, engine=engine)
            ).run_once()
            for engine in engines
        )
    )
    for engine in engines:
        await engine.dispose()
    assert sum(report.settled for report in reports) == 4
    assert sum(report.returned for report in reports) == 4
    assert {n: (await till.shop.session(n))[0] for n in numbers} == {
        n: SessionStatus.PAID if n % 2 else SessionStatus.PENDING for n in numbers
    }
    causes = await till.causes()
    assert {cause: causes.count(cause) for cause in set(causes)} == {
        "announced": 8,
        "credited_in_full": 4,
        "failed": 4,
    }


async def test_each_account_has_its_turn_and_a_run_has_a_bound(till: Till) -> None:
    """More sessions of one account wait than one run takes on, and all of them since earlier."""
    [alice_shop] = await till.network.fund("alice's shop")
    other = await Shop(
        till.shop.engine,
        account=alice_shop.account_id,
        merchant_id=till.shop.endpoint_id,
        endpoint_id=till.shop.merchant_id,
        position=till.shop.position,
    ).open()
    await other.add_session(2)
    for number in range(1000, 1000 + announcements.BATCH + 1):
        await session(till, number)
    await till.shop.execute(
        "WITH announced AS (UPDATE checkout_sessions SET status = 'processing',"
        " announced_tx_hash = sha256(memo),"
        " announced_at = CAST(:at AS timestamptz) + muxed_id * interval '-1 second'"
        " WHERE muxed_id > 1 RETURNING id)"
        " INSERT INTO session_transitions (session_id, before, after, cause, by, recorded_at)"
        " SELECT id, 'pending', 'processing', 'announced', 'test', :at FROM announced",
        at=NOW,
    )
    await till.recover()
    assert len(till.traced) == announcements.BATCH
    [(of_the_other,)] = await till.shop.rows(
        "SELECT encode(announced_tx_hash, 'hex') FROM checkout_sessions WHERE muxed_id = 2"
    )
    assert of_the_other in till.traced

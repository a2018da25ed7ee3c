"""Announcing a transaction, on a real database and a simulated network."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from stellar_sdk import Asset, IdMemo, Payment
from structlog.testing import capture_logs

from paywatch.domain.announcement import Reception, TxState
from paywatch.domain.checkout import Cause, SessionStatus
from paywatch.errors import NotFound
from paywatch.service.announce import Announced
from paywatch.sim import Fault, Moment
from paywatch.store.engine import create_engine
from support import NOW
from support.locks import somebody_waits_for_a_lock
from support.proxy import Cut, database_proxy
from support.statements import watched_statements
from support.till import PRICE, USD, Till, nothing, open_till, session

FAR = NOW + timedelta(days=1)


@pytest.fixture
async def till(engine: AsyncEngine) -> AsyncIterator[Till]:
    async with open_till(engine) as till:
        await session(till)
        yield till


async def announced_hash(till: Till) -> tuple[str | None, object]:
    sql = "SELECT encode(announced_tx_hash, 'hex'), announced_at FROM checkout_sessions"
    [(tx_hash, at)] = await till.shop.rows(f"{sql} WHERE muxed_id = 1")
    return tx_hash, at


async def test_a_transaction_that_horizon_does_not_know_yet_is_waited_for(till: Till) -> None:
    tx_hash = till.payment().hash_hex()
    announced = await till.announce(tx_hash, until=FAR)
    assert announced == Announced(
        await till.id_of(1), tx_hash, Reception.TAKEN, SessionStatus.PROCESSING, TxState.UNKNOWN
    )
    assert await till.shop.session() == ("processing", 0)
    assert await till.log() == [("pending", "processing", "announced", "announce")]
    assert await till.shop.rows(
        "SELECT encode(announced_tx_hash, 'hex'), announced_at, announced_until"
        " FROM checkout_sessions"
    ) == [(tx_hash, NOW, FAR)]


@pytest.mark.parametrize("bumped", [False, True])
async def test_a_transaction_that_is_there_pays_at_once_by_the_ordinary_way(
    till: Till, bumped: bool
) -> None:
    inner = till.payment()
    (tx,) = await till.network.pay(till.wallet.fee_bump(inner) if bumped else inner)
    announced = await till.announce(inner.hash_hex())
    assert (announced.status, announced.state) == (SessionStatus.PAID, TxState.SUCCEEDED)
    assert (announced.ledger, announced.closed_at) == (tx.ledger, tx.closed_at)
    assert (announced.settled, announced.ended) == (1, None)
    assert await till.shop.session() == ("paid", 100)
    assert await till.shop.rows("SELECT tx_hash FROM payments") == [(bytes.fromhex(tx.hash),)]
    assert await till.shop.rows("SELECT type, state FROM events JOIN deliveries ON true") == [
        ("checkout.session.paid", "pending")
    ]
    by = f"announce:{till.shop.account}"
    assert await till.log() == [
        ("pending", "processing", "announced", "announce"),
        ("processing", "paid", "credited_in_full", by),
    ]
    await till.settle_live()
    assert await till.shop.rows("SELECT count(*) FROM credits") == [(1,)], "the stream knows it"


async def test_half_of_the_amount_is_partially_paid(till: Till) -> None:
    announced = await till.announce(await till.pay(amount="0.0000050"))
    assert (announced.status, announced.ended) == (SessionStatus.PARTIALLY_PAID, None)


async def test_what_failed_on_the_ledger_is_pending_again_at_once(till: Till) -> None:
    tx_hash = await till.pay(amount="99999999")
    announced = await till.announce(tx_hash)
    assert (announced.state, announced.ended) == (TxState.FAILED, Cause.FAILED)
    assert announced.status is SessionStatus.PENDING
    assert (await till.log())[-1] == ("processing", "pending", "failed", "announce")


async def test_what_no_ledger_can_hold_any_more_is_pending_again_at_once(till: Till) -> None:
    tx_hash = till.payment().hash_hex()
    closed_at = till.network.ledger.latest.closed_at
    at_the_bound = await till.announce(tx_hash, until=closed_at)
    assert (at_the_bound.status, at_the_bound.ended) == (SessionStatus.PROCESSING, None)
    await till.network.close_ledger()
    behind_it = await till.announce(tx_hash)  # repeated without its bound, which is known
    assert (behind_it.reception, behind_it.ended) == (Reception.REPEATED, Cause.TIME_BOUNDS_PASSED)
    assert await till.shop.session() == ("pending", 0)


async def test_what_pays_another_asset_is_held_and_the_session_pending(till: Till) -> None:
    wrong = till.alice.pay(till.wallet.account_id, PRICE, USD, IdMemo(1))
    (tx,) = await till.network.pay(wrong)
    announced = await till.announce(tx.hash)
    assert (announced.settled, announced.ended) == (1, Cause.PAYS_NOTHING)
    assert await till.shop.session() == ("pending", 0)
    assert await till.shop.rows("SELECT outcome FROM credits") == [("wrong_asset",)]


async def test_what_paid_another_session_does_not_pay_this_one(till: Till) -> None:
    await session(till, 2)
    announced = await till.announce(await till.pay(2), 1)
    assert announced.ended is Cause.PAYS_NOTHING
    assert await till.shop.session(1) == ("pending", 0)
    assert await till.shop.session(2) == ("paid", 100), "found is found"
    again = await till.announce(announced.tx_hash, 1)
    assert (again.reception, again.settled) == (Reception.TAKEN, 0)
    assert again.ended is Cause.PAYS_NOTHING


async def test_one_announcement_pays_every_session_that_the_transaction_pays(till: Till) -> None:
    await session(till, 2)
    both = [Payment(till.wallet.muxed(n), Asset.native(), PRICE) for n in (1, 2)]
    (tx,) = await till.network.pay(till.alice.build(both))
    assert (await till.announce(tx.hash)).settled == 2
    assert await till.shop.session(1) == await till.shop.session(2) == ("paid", 100)
    assert await till.shop.rows("SELECT count(*) FROM payments") == [(1,)]


# Announced twice, or another one.


async def test_the_same_hash_submitted_twice_changes_nothing(till: Till) -> None:
    tx_hash = till.payment().hash_hex()
    await till.announce(tx_hash)
    till.now += timedelta(minutes=3)
    again = await till.announce(tx_hash)
    assert (again.reception, again.status) == (Reception.REPEATED, SessionStatus.PROCESSING)
    assert await announced_hash(till) == (tx_hash, NOW), "it is not waited for longer"
    assert await till.causes() == ["announced"]
    assert till.traced == [tx_hash] * 2, "it is looked up all the same"


@pytest.mark.parametrize("is_there", [False, True])
async def test_the_same_hash_submitted_twice_at_the_same_moment_is_taken_once(
    till: Till, is_there: bool
) -> None:
    tx_hash = await till.pay() if is_there else till.payment().hash_hex()
    both = await asyncio.gather(*(till.announce(tx_hash) for _ in range(2)))
    receptions = sorted(announced.reception for announced in both)
    # The slower one may find the session paid by the faster one's look-up already.
    assert receptions in (["repeated", "taken"], ["looked_up", "taken"])
    assert (await till.causes()).count("announced") == 1
    assert await till.shop.session() == (("paid", 100) if is_there else ("processing", 0))
    assert await till.shop.rows("SELECT count(*) FROM events") == [(int(is_there),)]
    assert sum(announced.settled for announced in both) == int(is_there)


async def test_another_hash_takes_the_place_of_the_first(till: Till) -> None:
    first, second = till.payment().hash_hex(), till.payment(amount="0.0000200").hash_hex()
    await till.announce(first, until=FAR)
    till.now += timedelta(minutes=3)
    with capture_logs() as logs:
        announced = await till.announce(second)
    assert announced.reception is Reception.REPLACED
    assert await announced_hash(till) == (second, till.now)
    assert await till.shop.rows("SELECT announced_until FROM checkout_sessions") == [(None,)]
    assert await till.log() == [
        ("pending", "processing", "announced", "announce"),
        ("processing", "processing", "announced", "announce"),
    ]
    [line] = [line for line in logs if line["event"] == "announced"]
    assert (line["tx_hash"], line["instead_of"]) == (second, first)


async def test_two_announcements_racing_leave_one_transaction_that_is_waited_for(
    till: Till, database_url: str
) -> None:
    hashes = [till.payment(amount=f"0.000010{n}").hash_hex() for n in range(4)]
    with psycopg.connect(database_url) as holder, psycopg.connect(database_url) as prober:
        holder.execute("SELECT FROM checkout_sessions FOR UPDATE")
        racing = asyncio.gather(*(till.announce(tx_hash) for tx_hash in hashes))
        await somebody_waits_for_a_lock(prober)
        holder.rollback()
        receptions = sorted(announced.reception for announced in await racing)
    assert receptions == ["replaced"] * 3 + ["taken"]
    assert (await announced_hash(till))[0] in hashes
    assert [row[:2] for row in await till.log()] == [
        ("pending", "processing"),
        *[("processing", "processing")] * 3,
    ]


async def test_a_commit_that_was_not_answered_is_told_as_a_repetition(
    till: Till, database_url: str
) -> None:
    async with database_proxy(database_url) as (proxy, url):
        proxy.cut, proxy.cuts = Cut.AFTER_COMMIT, 1
        engine = create_engine(url)
        tracer = replace(till.announcements.tracer, engine=engine)
        announced = await replace(till.announcements, tracer=tracer).announce(
            await till.id_of(1), till.payment().hash_hex()
        )
        await engine.dispose()
    assert proxy.cuts == 0
    assert announced.reception is Reception.REPEATED
    assert await till.causes() == ["announced"]


# Sessions that do not wait.


async def test_a_partly_paid_session_keeps_its_status_and_its_money(till: Till) -> None:
    await till.announce(await till.pay(amount="0.0000040"))
    unseen = await till.announce("ab" * 32)
    assert (unseen.reception, unseen.state) == (Reception.LOOKED_UP, TxState.UNKNOWN)
    failed = await till.announce(await till.pay(amount="99999999"))
    assert (failed.state, failed.ended) == (TxState.FAILED, None)
    assert await till.shop.session() == ("partially_paid", 40)
    rest = await till.announce(await till.pay(amount="0.0000060"))
    assert (rest.reception, rest.status) == (Reception.LOOKED_UP, SessionStatus.PAID)
    assert (await till.causes()).count("announced") == 1


async def test_a_second_payment_of_a_paid_session_is_found_and_held(till: Till) -> None:
    await till.announce(await till.pay())
    second = await till.announce(await till.pay())
    assert (second.reception, second.settled) == (Reception.LOOKED_UP, 1)
    assert await till.shop.rows("SELECT outcome FROM credits ORDER BY operation_id") == [
        ("applied",),
        ("duplicate",),
    ]
    assert await till.shop.rows("SELECT count(*) FROM events WHERE type LIKE '%paid'") == [(1,)]


@pytest.mark.parametrize("in_time", [True, False])
async def test_an_expired_session_is_paid_by_what_closed_in_time(till: Till, in_time: bool) -> None:
    deadline = till.network.ledger.latest.closed_at + timedelta(seconds=5 if in_time else 4)
    await session(till, 2, expires_at=max(deadline, NOW + timedelta(seconds=1)))
    await till.shop.execute(
        "UPDATE checkout_sessions SET created_at = :at - interval '1 hour', expires_at = :at,"
        " accept_until = :at WHERE muxed_id = 2",
        at=deadline,
    )
    tx_hash = await till.pay(2)
    await till.shop.execute(
        "UPDATE cursors SET read_through_at = :at", at=deadline + timedelta(seconds=1)
    )
    assert await till.recovery.expire_overdue() == 1
    announced = await till.announce(tx_hash, 2)
    assert announced.reception is Reception.LOOKED_UP
    assert announced.status is (SessionStatus.PAID if in_time else SessionStatus.EXPIRED)
    assert await till.shop.rows("SELECT outcome FROM credits") == [
        ("applied" if in_time else "late",)
    ]


async def test_money_for_a_canceled_session_is_held(till: Till) -> None:
    await till.shop.execute(
        "WITH canceled AS (UPDATE checkout_sessions SET status = 'canceled' RETURNING id)"
        " INSERT INTO session_transitions (session_id, before, after, cause, by, recorded_at)"
        " SELECT id, 'pending', 'canceled', 'canceled', 'test', :now FROM canceled",
        now=NOW,
    )
    announced = await till.announce(await till.pay())
    assert (announced.reception, announced.status) == (Reception.LOOKED_UP, SessionStatus.CANCELED)
    assert await till.shop.rows("SELECT outcome FROM credits") == [("canceled",)]


async def test_an_unknown_session_is_no_session(till: Till) -> None:
    with pytest.raises(NotFound, match="there is no session"):
        await till.announcements.announce(UUID(int=7), "ab" * 32)
    assert till.traced == []


async def test_what_was_paid_before_the_watching_began_is_not_brought_in(till: Till) -> None:
    """Else anyone who knows an old hash could have it held, and the merchant told of it."""
    old = await till.pay(7)
    tip = int(await till.source.tip())
    await till.shop.execute("UPDATE cursors SET position = :tip", tip=tip)
    await till.shop.execute("UPDATE accounts SET start_position = :tip", tip=tip)
    announced = await till.announce(old)
    assert (announced.state, announced.settled) == (TxState.SUCCEEDED, 0)
    assert await till.shop.rows("SELECT count(*) FROM credits") == [(0,)]


# Faults, and others at the same session.


async def test_while_horizon_is_away_it_is_announced_all_the_same_and_said(till: Till) -> None:
    tx_hash = await till.pay()
    till.network.faults.next(Fault.GATEWAY_TIMEOUT, Moment.PAGE, "/transactions/")
    announced = await till.announce(tx_hash)
    assert (announced.reception, announced.state) == (Reception.TAKEN, None)
    assert announced.status is SessionStatus.PROCESSING
    assert announced.problem is not None
    assert "504" in announced.problem
    report = await till.recover()
    assert (report.settled, report.returned) == (1, 0)
    assert await till.shop.session() == ("paid", 100)


async def test_a_crash_that_leaves_a_session_in_processing_is_taken_up_by_recovery(
    till: Till,
) -> None:
    """Killed after the announcement and before anything was made of the look-up."""

    class Killed(BaseException):
        pass

    async def die() -> None:
        raise Killed

    tx_hash, till.meanwhile = await till.pay(), die
    with pytest.raises(Killed):
        await till.announce(tx_hash)
    assert await till.shop.session() == ("processing", 0)
    assert await till.shop.rows("SELECT count(*) FROM credits") == [(0,)]
    till = replace(till, meanwhile=nothing)
    report = await till.recover()
    assert (report.settled, report.healthy) == (1, True)
    assert await till.shop.session() == ("paid", 100)


async def test_a_session_that_is_paid_while_it_is_looked_up_stays_paid(till: Till) -> None:
    """By another transaction than the one that was announced, which failed."""
    failed = await till.pay(amount="99999999")
    await till.pay()
    till.meanwhile = till.settle_live
    announced = await till.announce(failed)
    assert (announced.ended, announced.status) == (None, SessionStatus.PAID)
    assert await till.causes() == ["announced", "credited_in_full"]


async def test_an_announcement_beside_the_stream_settles_once(till: Till) -> None:
    numbers = range(2, 12)
    for number in numbers:
        await session(till, number)
    hashes = [await till.pay(number) for number in numbers]
    announcing = (till.announce(h, n) for h, n in zip(hashes, numbers, strict=True))
    announced = (await asyncio.gather(till.settle_live(), *announcing))[1:]
    assert {(await till.shop.session(n)) for n in numbers} == {("paid", 100)}
    assert {a.status for a in announced if isinstance(a, Announced)} == {SessionStatus.PAID}
    assert await till.shop.rows("SELECT count(*), count(DISTINCT subject) FROM events") == [
        (10, 10)
    ]


@pytest.mark.parametrize("first", ["expiry", "announcement"])
async def test_an_announcement_beside_the_expiry(till: Till, database_url: str, first: str) -> None:
    """Whichever has the lock first: the session expires once, and waits for nothing then."""
    tx_hash = till.payment().hash_hex()
    await till.shop.execute("UPDATE cursors SET read_through_at = :at", at=FAR)
    works: dict[str, Callable[[], Awaitable[object]]] = {
        "expiry": till.recovery.expire_overdue,
        "announcement": lambda: till.announce(tx_hash),
    }
    with psycopg.connect(database_url) as holder, psycopg.connect(database_url) as prober:
        holder.execute("SELECT FROM checkout_sessions FOR UPDATE")
        tasks = [asyncio.ensure_future(works.pop(first)())]
        await somebody_waits_for_a_lock(prober)
        tasks += [asyncio.ensure_future(work()) for work in works.values()]
        holder.rollback()
        await asyncio.gather(*tasks)
    await till.recovery.expire_overdue()
    assert await till.shop.session() == ("expired", 0)
    assert (await till.causes()) in (["announced", "deadline_passed"], ["deadline_passed"])
    assert await till.shop.rows("SELECT type FROM events") == [("checkout.session.expired",)]


async def test_the_work_grows_neither_with_the_sessions_nor_with_the_operations(till: Till) -> None:
    counts = []
    for size in (1, 40):
        numbers = range(100 * size, 100 * size + size)
        for number in numbers:
            await session(till, number)
        payments = [Payment(till.wallet.muxed(n), Asset.native(), PRICE) for n in numbers]
        (tx,) = await till.network.pay(till.alice.build(payments))
        requests = till.network.requests.total
        with watched_statements() as statements:
            await till.announce(tx.hash, numbers[0])
        counts.append((len(statements), till.network.requests.total - requests))
    assert counts[0] == counts[1]
    assert counts[0][1] == 3, "the root, the transaction, its payments"

"""Recovery on a real database: every repair once, and none that was not needed."""

import asyncio
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from paywatch.domain.ledger import LedgerRecord, Memo, Position
from paywatch.service import search
from paywatch.service.recover import Recovery, RecoveryReport, Timing
from paywatch.service.settle import Order
from paywatch.store.engine import create_engine
from paywatch.telemetry import Progress
from support import (
    ACCOUNT,
    NOW,
    USDC,
    Shop,
    address,
    batch_of,
    closing,
    make_batch,
    make_credit,
)
from support.pages import Pages
from support.statements import statements_of

AGES_AGO = NOW - timedelta(minutes=6)
JUST_NOW = NOW - timedelta(minutes=4)
EVENTS = "SELECT type FROM events ORDER BY type"
LOG = "SELECT before, after, cause, by FROM session_transitions ORDER BY id"


@dataclass
class Care:
    """A shop, a Horizon, and recovery between them."""

    shop: Shop
    pages: Pages = field(default_factory=Pages)

    @property
    def recovery(self) -> Recovery:
        return Recovery(
            self.shop.engine,
            self.shop.settler,
            self.pages,
            lambda: NOW,
            Random(1),
            self.shop.metrics,
        )

    async def run(self) -> RecoveryReport:
        return await self.recovery.run_once()

    def repaired(self, repair: str) -> float:
        name, labels = "paywatch_recovered_total", {"repair": repair}
        return self.shop.metrics.registry.get_sample_value(name, labels) or 0

    async def announce(self, *numbers: int, at: datetime = AGES_AGO) -> None:
        """A payer named a transaction that paywatch has not seen."""
        await self.shop.execute(
            "WITH announced AS (UPDATE checkout_sessions SET status = 'processing',"
            " announced_tx_hash = sha256(memo), announced_at = :at"
            " WHERE muxed_id = ANY(:numbers) RETURNING id)"
            " INSERT INTO session_transitions (session_id, before, after, cause, by, recorded_at)"
            " SELECT id, 'pending', 'processing', 'announced', 'payer', :at FROM announced",
            numbers=list(numbers),
            at=at,
        )

    async def mark_paid(self, number: int = 1, *, told: bool = True) -> None:
        """Somebody's hand marked it paid: no credit, no payment."""
        await self.shop.settle(make_credit(memo=Memo.of_id(number), tx=900 + number, ledger=1003))
        await self.shop.execute("DELETE FROM credits")
        await self.shop.execute("DELETE FROM payments")
        if not told:
            await self.forget_event()

    async def forget_event(self) -> None:
        await self.shop.execute("DELETE FROM deliveries")
        await self.shop.execute("DELETE FROM events")

    async def read_through(self, at: datetime, account: str = ACCOUNT) -> None:
        await self.shop.execute(
            "UPDATE cursors SET read_through_at = :at WHERE account = :account",
            at=at,
            account=account,
        )


@pytest.fixture
def care(shop: Shop) -> Care:
    return Care(shop)


async def second_shop(shop: Shop) -> Shop:
    other = Shop(
        shop.engine, account=address("other shop"), merchant_id=uuid4(), endpoint_id=uuid4()
    )
    return await other.open()


async def test_on_a_healthy_database_it_changes_nothing_and_asks_nobody(care: Care) -> None:
    for number in range(1, 4):
        await care.shop.add_session(number)
    await care.announce(3, at=JUST_NOW)
    await care.shop.settle(
        make_credit(memo=Memo.of_id(1)), make_credit(memo=Memo.of_id(1), tx=2), make_credit(7, tx=3)
    )
    before = await care.shop.rows("SELECT * FROM checkout_sessions ORDER BY id")
    report = await care.run()
    assert report == RecoveryReport(0, 0, 0, 0, 0, 0, 0, 0, 0, (), ())
    assert report.healthy
    assert await care.shop.rows("SELECT * FROM checkout_sessions ORDER BY id") == before
    assert care.pages.asked == []


# 1. Sessions in processing.


async def test_an_announced_payment_found_on_horizon_is_settled_the_ordinary_way(
    care: Care,
) -> None:
    await care.shop.add_session()
    await care.announce(1)
    care.pages.credits = [make_credit()]
    with capture_logs() as logs:
        report = await care.run()
    assert (report.settled, report.returned) == (1, 0)
    assert care.repaired("missed_credit") == 1
    assert [line["operation_id"] for line in logs if line["event"] == "repaired"] == [
        str(care.pages.credits[0].operation_id)
    ]
    assert await care.shop.session() == ("paid", 100)
    assert await care.shop.rows(EVENTS) == [("checkout.session.paid",)]
    assert await care.shop.rows("SELECT count(*) FROM deliveries") == [(1,)]
    assert (await care.shop.rows(LOG))[-1] == (
        "processing",
        "paid",
        "credited_in_full",
        f"recover:{ACCOUNT}",
    )


async def test_an_announced_payment_without_a_trace_is_pending_again_with_the_reason(
    care: Care,
) -> None:
    session = await care.shop.add_session()
    await care.announce(1)
    care.pages.credits = [make_credit(memo=Memo.of_id(77))]  # somebody else's
    care.pages.tip = Position.after_ledger(1100)  # the deadline is still to come
    with capture_logs() as logs:
        report = await care.run()
    assert report.returned == 1
    assert len(care.pages.asked) == 2, "it ends with the ledger"
    assert await care.shop.session() == ("pending", 0)
    assert (await care.shop.rows(LOG))[-1] == ("processing", "pending", "untraced", "recover")
    assert care.repaired("processing") == 1
    assert {"event": "repaired", "repair": "processing", "session_id": str(session.id)}.items() <= (
        next(line for line in logs if line["event"] == "repaired").items()
    )


async def test_an_announced_payment_of_half_is_partially_paid_not_pending(care: Care) -> None:
    await care.shop.add_session()
    await care.announce(1)
    care.pages.credits = [make_credit(50)]
    assert (await care.run()).returned == 0
    assert await care.shop.session() == ("partially_paid", 50)


async def test_a_fresh_announcement_is_not_touched(care: Care) -> None:
    await care.shop.add_session()
    await care.announce(1, at=JUST_NOW)
    await care.run()
    assert await care.shop.session() == ("processing", 0)
    assert care.pages.asked == []


async def test_while_horizon_is_away_announced_sessions_are_left_alone_and_reported(
    care: Care,
) -> None:
    other = await second_shop(care.shop)
    await care.shop.add_session(1)
    await other.add_session(2)
    await care.announce(1, 2)
    care.pages.away = {ACCOUNT}
    report = await care.run()
    assert report.unsearched == (ACCOUNT,)
    assert not report.healthy
    assert await care.shop.session(1) == ("processing", 0)
    assert await other.session(2) == ("pending", 0), "another merchant's account is not held up"


async def test_lesson_2_a_session_paid_between_the_look_and_the_write_stays_paid(
    care: Care,
) -> None:
    await care.shop.add_session()
    await care.announce(1)

    async def the_stream_is_faster(_after: Position) -> None:
        await care.shop.settle(make_credit())

    care.pages.meanwhile = the_stream_is_faster
    report = await care.run()
    assert report.returned == 0
    assert await care.shop.session() == ("paid", 100)
    assert await care.shop.rows(EVENTS) == [("checkout.session.paid",)]


async def test_a_session_announced_anew_between_the_look_and_the_write_stays_processing(
    care: Care,
) -> None:
    await care.shop.add_session()
    await care.announce(1)

    async def announced_again(_after: Position) -> None:
        await care.shop.execute("UPDATE checkout_sessions SET announced_at = :now", now=NOW)

    care.pages.meanwhile = announced_again
    assert (await care.run()).returned == 0
    assert await care.shop.session() == ("processing", 0)


async def test_the_search_begins_at_the_opening_and_ends_behind_the_deadline(care: Care) -> None:
    session = await care.shop.add_session(expires_at=closing(1010))
    await care.announce(1)
    care.pages.size = 1
    care.pages.credits = [
        make_credit(7, ledger=ledger, memo=Memo.none()) for ledger in (900, 1005, 1011, 1012, 1013)
    ]
    await care.run()
    [(opened,)] = await care.shop.rows(
        "SELECT opened_position FROM checkout_sessions WHERE id = :id", id=session.id
    )
    asked = [position for _, position in care.pages.asked]
    assert asked == [opened, *[c.operation_id for c in care.pages.credits[1:2]]]


async def test_a_search_without_an_end_is_given_up_and_reported(
    care: Care, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "LONGEST", 3)
    await care.shop.add_session()
    await care.announce(1)
    care.pages.size = 1
    care.pages.credits = [make_credit(7, tx=n, memo=Memo.none()) for n in range(1, 10)]
    report = await care.run()
    assert report.unsearched == (ACCOUNT,)
    assert await care.shop.session() == ("processing", 0)
    assert len(care.pages.asked) == 3


@pytest.mark.breaks_invariants
async def test_a_session_that_nothing_proves_does_not_cost_all_its_pages_in_each_run(
    care: Care, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "LONGEST", 4)
    now = NOW
    await care.shop.add_session(expires_at=NOW + timedelta(days=30))
    await care.mark_paid()
    care.pages.size = 1
    care.pages.credits = [make_credit(7, tx=n, memo=Memo.none()) for n in range(1, 10)]
    settler = replace(care.shop.settler, clock=lambda: now)
    recovery = replace(care.recovery, settler=settler)

    async def pages() -> int:
        care.pages.asked.clear()
        report = await recovery.run_once()
        assert (report.unsearched, report.unproven) in {((ACCOUNT,), 0), ((), 1)}
        return len(care.pages.asked)

    assert [await pages() for _ in range(5)] == [4, 4, 2, 1, 1], "it goes on where it ended"
    care.pages.credits.append(make_credit(7, tx=10, memo=Memo.none()))
    assert await pages() == 2, "what is new"
    now += timedelta(days=1)
    assert await pages() == 4, "Horizon may have filled in behind"
    [proof] = care.pages.credits = [make_credit(100, tx=20)]
    assert (await recovery.run_once()).proven == 1
    assert care.pages.asked[-1][1] <= proof.operation_id


async def test_what_names_no_stuck_session_is_left_to_the_stream(care: Care) -> None:
    """Else each run would put the same unreadable record into quarantine again."""
    await care.shop.add_session()
    await care.announce(1)
    care.pages.credits = [make_credit(9, memo=Memo.none())]
    care.pages.others = [LedgerRecord(Position.of(1002, 1, 1), (), "amount: missing", {"id": "x"})]
    await care.run()
    assert await care.shop.rows("SELECT * FROM quarantine") == []
    assert await care.shop.rows("SELECT * FROM credits") == []


async def test_lesson_4_neither_statements_nor_requests_grow_with_the_sessions(care: Care) -> None:
    counts = []
    for number in range(1, 61):
        await care.shop.add_session(number, expires_at=closing(1400))
    for first, last in ((1, 2), (3, 30), (31, 60)):
        await care.announce(*range(first, last + 1))
        care.pages = Pages([make_credit(memo=Memo.of_id(first), ledger=1000 + first)])
        counts.append((await statements_of(care.run), len(care.pages.asked)))
    assert counts[0] == counts[1] == counts[2]
    assert counts[0][1] == 2


async def test_an_account_that_cannot_be_searched_does_not_take_all_places(care: Care) -> None:
    """More stuck sessions than one run takes on, all of an account that Horizon does not answer."""
    other = await second_shop(care.shop)
    await care.shop.execute(
        "INSERT INTO checkout_sessions (id, merchant_id, account, memo_type, memo, muxed_id, asset,"
        " amount, expires_at, created_at, updated_at, opened_position, status, announced_at,"
        " least_amount, accept_until, text_for_id)"
        " SELECT gen_random_uuid(), :merchant, :account, 'id', int8send(n), n, 'native', 1,"
        " :until, :at, :at, 0, 'pending', NULL, 1, :until, true FROM generate_series(1000, 1600) n",
        merchant=care.shop.merchant_id,
        account=ACCOUNT,
        until=NOW + timedelta(minutes=30),
        at=AGES_AGO - timedelta(hours=1),
    )
    await other.add_session(2)
    await care.announce(*range(1000, 1601))
    await care.announce(2, at=AGES_AGO + timedelta(seconds=1))
    care.pages.away = {ACCOUNT}
    await care.run()
    assert await other.session(2) == ("pending", 0)


# 2. Paid sessions without a payment.


async def test_a_paid_session_gets_the_payment_that_it_lacks_and_is_told_no_second_time(
    care: Care,
) -> None:
    session = await care.shop.add_session()
    await care.mark_paid()
    credit = make_credit(100)
    care.pages.credits = [credit]
    with capture_logs() as logs:
        report = await care.run()
    assert (report.proven, report.unproven, report.marked) == (1, 0, 0)
    assert report.healthy
    assert care.repaired("missing_payment") == 1
    assert await care.shop.session() == ("paid", 100)
    assert await care.shop.rows("SELECT outcome, session_id FROM credits") == [
        ("applied", session.id)
    ]
    assert await care.shop.rows("SELECT tx_hash FROM payments") == [
        (bytes.fromhex(credit.tx_hash),)
    ]
    assert await care.shop.rows(EVENTS) == [("checkout.session.paid",)]
    assert len(await care.shop.rows(LOG)) == 1, "it was paid, and it is"
    repairs = [line["repair"] for line in logs if line["event"] == "repaired"]
    assert repairs == ["missed_credit", "missing_payment"]


async def test_a_proof_in_parts_on_several_pages_is_found_whole(care: Care) -> None:
    """Half a proof would make the other half a duplicate."""
    await care.shop.add_session()
    await care.mark_paid()
    care.pages.size = 1
    care.pages.credits = [make_credit(40, ledger=1001), make_credit(60, ledger=1002)]
    report = await care.run()
    assert (report.proven, report.healthy) == (1, True)
    assert await care.shop.rows("SELECT outcome FROM credits") == [("applied",), ("applied",)]
    assert await care.shop.session() == ("paid", 100)


async def test_a_paid_session_of_which_nobody_was_told_is_proven_and_told(care: Care) -> None:
    await care.shop.add_session()
    await care.mark_paid(told=False)
    care.pages.credits = [make_credit(100)]
    report = await care.run()
    assert (report.proven, report.healthy) == (1, True)
    assert await care.shop.rows("SELECT type, state FROM events JOIN deliveries ON event_id = id")
    assert await care.shop.rows(EVENTS) == [("checkout.session.paid",)]


@pytest.mark.breaks_invariants
async def test_a_paid_session_without_a_trace_is_left_and_alarms_each_time(care: Care) -> None:
    session = await care.shop.add_session()
    await care.mark_paid()
    before = await care.shop.rows("SELECT * FROM checkout_sessions")
    for _ in range(2):
        with capture_logs() as logs:
            report = await care.run()
        assert (report.proven, report.unproven, report.healthy) == (0, 1, False)
        assert "paid_if_and_only_if_credited" in {v.invariant for v in report.violations}
        assert ("paid_without_payment", str(session.id), "error") in {
            (line["event"], line.get("session_id"), line["log_level"]) for line in logs
        }
    assert await care.shop.rows("SELECT * FROM checkout_sessions") == before
    assert care.repaired("missing_payment") == 0
    value = care.shop.metrics.registry.get_sample_value("paywatch_invariant_violations")
    assert value == len(report.violations)


@pytest.mark.breaks_invariants
async def test_a_paid_session_with_a_partial_proof_alarms_each_time(care: Care) -> None:
    await care.shop.add_session()
    await care.mark_paid()
    care.pages.credits = [make_credit(40)]
    for _ in range(2):
        report = await care.run()
        assert (report.proven, report.unproven, report.healthy) == (0, 1, False)
    assert await care.shop.session() == ("paid", 40)
    assert care.repaired("missing_payment") == 0


@pytest.mark.breaks_invariants
async def test_while_horizon_is_away_nothing_is_said_about_a_missing_payment(care: Care) -> None:
    await care.shop.add_session()
    await care.mark_paid()
    care.pages.away = {ACCOUNT}
    report = await care.run()
    assert (report.proven, report.unproven, report.unsearched) == (0, 0, (ACCOUNT,))
    assert not report.healthy


async def test_a_credit_of_another_asset_or_too_late_proves_nothing(care: Care) -> None:
    await care.shop.add_session(expires_at=closing(1010))
    await care.mark_paid()
    care.pages.credits = [
        make_credit(ledger=1001, asset=USDC),
        make_credit(ledger=1002),
        make_credit(ledger=1011),
    ]
    report = await care.run()
    assert report.proven == 1
    assert await care.shop.rows("SELECT outcome FROM credits ORDER BY operation_id") == [
        ("wrong_asset",),
        ("applied",),
        ("duplicate",),
    ]


# 3. Sessions with enough credits that are not paid.


@pytest.mark.parametrize("status", ["pending", "processing", "partially_paid", "expired"])
async def test_a_session_with_enough_credits_is_marked_paid_with_its_event(
    care: Care, status: str
) -> None:
    session = await care.shop.add_session()
    credits_ = [make_credit(60, ledger=1001), make_credit(60, ledger=1002)]
    await care.shop.settle(*credits_)
    await care.forget_event()
    await care.shop.execute("DELETE FROM session_transitions")
    await care.shop.execute(
        "UPDATE checkout_sessions SET status = :status, paid_at = NULL, paid_how = NULL,"
        " received = 0, announced_tx_hash = sha256('x'), announced_at = :now",
        status=status,
        now=NOW,
    )
    with capture_logs() as logs:
        report = await care.run()
    assert (report.marked, report.healthy) == (1, True)
    assert care.repaired("unmarked_paid") == 1
    assert [line["repair"] for line in logs if line["event"] == "repaired"] == ["unmarked_paid"]
    assert await care.shop.session() == ("paid", 120)
    assert await care.shop.rows("SELECT paid_how, paid_at FROM checkout_sessions") == [
        ("over", closing(1002))
    ]
    assert await care.shop.rows(LOG) == [(status, "paid", "credited_in_full", "recover")]
    assert await care.shop.rows("SELECT type, subject, state FROM events JOIN deliveries ON true")
    [(payload,)] = await care.shop.rows("SELECT payload FROM events")
    assert b'"status":"paid"' in payload
    assert f'"tx_hash":"{credits_[1].tx_hash}"'.encode() in payload
    assert str(session.id).encode() in payload
    assert (await care.run()).marked == 0


async def test_lesson_3_a_paid_session_that_nobody_was_told_of_is_told_once(care: Care) -> None:
    await care.shop.add_session()
    await care.shop.settle(make_credit())
    before = await care.shop.rows("SELECT id, payload FROM events")
    log = await care.shop.rows(LOG)
    await care.forget_event()
    care.shop.told = 0
    assert (await care.run()).marked == 1
    assert await care.shop.rows("SELECT id, payload FROM events") == before, "the same event"
    assert await care.shop.rows("SELECT state FROM deliveries") == [("pending",)]
    assert await care.shop.rows(LOG) == log
    assert care.shop.told == 1, "the dispatcher is woken"
    assert (await care.run()).marked == 0


@pytest.mark.breaks_invariants
async def test_a_canceled_session_with_enough_credits_is_left_to_a_person(care: Care) -> None:
    await care.shop.add_session()
    await care.shop.settle(make_credit())
    await care.forget_event()
    await care.shop.execute(
        "UPDATE checkout_sessions SET status = 'canceled', paid_at = NULL, paid_how = NULL"
    )
    report = await care.run()
    assert report.marked == 0
    assert "paid_if_and_only_if_credited" in {v.invariant for v in report.violations}
    assert (await care.shop.session())[0] == "canceled"


# Expiry, leases, and what must always hold.


async def test_lesson_2_a_session_expires_when_its_stream_was_read_past_its_deadline(
    care: Care,
) -> None:
    session = await care.shop.add_session(expires_at=closing(1010))
    await care.shop.settle(make_credit(30))
    care.shop.told = 0
    await care.read_through(closing(1010))
    assert await care.recovery.expire_overdue() == 0, "the ledger of the deadline may go on"
    await care.read_through(closing(1011))
    with capture_logs() as logs:
        assert await care.recovery.expire_overdue() == 1
        assert await care.recovery.expire_overdue() == 0
    assert await care.shop.session() == ("expired", 30)
    assert (await care.shop.rows(LOG))[-1] == (
        "partially_paid",
        "expired",
        "deadline_passed",
        "recover",
    )
    [(type_, payload)] = await care.shop.rows("SELECT type, payload FROM events")
    assert type_ == "checkout.session.expired"
    assert b'"received":"0.0000030"' in payload
    assert b'"status":"expired"' in payload
    assert await care.shop.rows("SELECT state FROM deliveries") == [("pending",)]
    assert care.repaired("expired") == 1
    assert care.shop.told == 1
    [line] = [line for line in logs if line["event"] == "session_expired"]
    assert (line["session_id"], line["received"]) == (str(session.id), 30)


async def test_while_horizon_is_away_nothing_expires_however_late_it_is(care: Care) -> None:
    await care.shop.add_session(expires_at=closing(1010))
    assert await replace(care.recovery, clock=lambda: closing(90_000)).expire_overdue() == 0
    await care.read_through(closing(1009))
    assert await replace(care.recovery, clock=lambda: closing(90_000)).expire_overdue() == 0
    assert await care.shop.session() == ("pending", 0)


async def test_a_payment_in_time_is_settled_before_and_after_the_expiry(care: Care) -> None:
    for number in (1, 2):
        await care.shop.add_session(number, expires_at=closing(1010))
    await care.shop.settle(make_credit(ledger=1010))
    await care.read_through(closing(1100))
    assert await care.recovery.expire_overdue() == 1
    await care.shop.settle(make_credit(ledger=1009, memo=Memo.of_id(2)))
    assert await care.shop.session(1) == await care.shop.session(2) == ("paid", 100)


async def test_a_backfill_of_the_past_and_another_accounts_stream_expire_nothing(
    care: Care,
) -> None:
    other = await second_shop(care.shop)
    await care.shop.add_session(expires_at=closing(1010))
    await care.read_through(closing(1100), other.account)
    await care.shop.execute(
        "INSERT INTO cursors (stream, account, position, end_position, read_through_at, updated_at)"
        " VALUES ('backfill:x', :account, 1, 2, :at, :at)",
        account=ACCOUNT,
        at=closing(1100),
    )
    assert await care.recovery.expire_overdue() == 0


async def test_thousands_of_overdue_sessions_expire_in_runs_of_constant_statements(
    care: Care,
) -> None:
    other = await second_shop(care.shop)
    await care.shop.execute(
        "INSERT INTO checkout_sessions (id, merchant_id, account, memo_type, memo, muxed_id, asset,"
        " amount, expires_at, created_at, updated_at, opened_position, least_amount,"
        " accept_until, text_for_id)"
        " SELECT gen_random_uuid(), merchant_id, account, 'id', int8send(n), n, 'native', 1,"
        " :until, :at, :at, 0, 1, :until, true FROM generate_series(1, 600) n, accounts",
        until=NOW,
        at=NOW - timedelta(hours=1),
    )
    for account in (ACCOUNT, other.account):
        await care.read_through(NOW + timedelta(seconds=1), account)
    recovery, expired = care.recovery, []

    async def expire() -> None:
        expired.append(await recovery.expire_overdue())

    assert [await statements_of(expire) for _ in range(4)] == [4, 4, 4, 1]
    assert expired == [500, 500, 200, 0]
    assert await care.shop.rows("SELECT count(*), count(DISTINCT subject) FROM events") == [
        (1200, 1200)
    ]


async def test_leases_of_dispatchers_that_died_are_freed(care: Care) -> None:
    await care.shop.add_session(1)
    await care.shop.add_session(2)
    await care.shop.settle(make_credit(), make_credit(memo=Memo.of_id(2), tx=2))
    await care.shop.execute(
        "UPDATE deliveries SET lease_token = gen_random_uuid(), lease_until = :now"
        " + CASE WHEN event_id = (SELECT id FROM events ORDER BY id LIMIT 1)"
        " THEN interval '1 second' ELSE interval '-1 second' END",
        now=NOW,
    )
    with capture_logs() as logs:
        report = await care.run()
    assert report.released == 1
    assert care.repaired("lease") == 1
    assert [line["repair"] for line in logs if line["event"] == "repaired"] == ["lease"]
    [(until,)] = await care.shop.rows(
        "SELECT lease_until FROM deliveries WHERE lease_token IS NOT NULL"
    )
    assert until == NOW + timedelta(seconds=1), "a living dispatcher keeps its own"
    await care.shop.execute("UPDATE deliveries SET lease_token = NULL, lease_until = NULL")


async def test_what_waits_for_an_endpoint_that_is_gone_is_given_up(care: Care) -> None:
    await care.shop.add_session()
    await care.shop.settle(make_credit())
    await care.shop.execute(
        "UPDATE endpoints SET disabled_at = :now, disabled_reason = '410'", now=NOW
    )
    report = await care.run()
    assert report.buried == 1
    assert care.repaired("undeliverable") == 1
    assert await care.shop.rows("SELECT state FROM deliveries") == [("dead",)]


@pytest.mark.breaks_invariants
async def test_a_run_checks_the_invariants_says_them_and_sets_the_gauges(care: Care) -> None:
    await care.shop.add_session()
    await care.shop.settle(make_credit(40))
    await care.shop.execute("UPDATE checkout_sessions SET received = 41")
    bad = LedgerRecord(Position.of(1001, 1, 9), (), "amount: missing", {"id": "x"})
    for stream in ("live", "backfill"):
        await care.shop.settler.settle(Order(batch_of([bad]), stream))
    with capture_logs() as logs:
        report = await care.run()
    assert [v.invariant for v in report.violations] == ["received_is_the_sum_of_applied_credits"]
    assert not report.healthy
    assert [line["invariant"] for line in logs if line["event"] == "invariant_violated"] == [
        "received_is_the_sum_of_applied_credits"
    ]
    values = care.shop.metrics.registry.get_sample_value
    assert values("paywatch_invariant_violations") == 1
    assert values("paywatch_invariants_checked_timestamp_seconds") == NOW.timestamp()
    assert values("paywatch_quarantine_records") == 1, "two streams met one record"


async def test_lesson_4_two_recoveries_at_the_same_moment_repair_once(
    care: Care, database_url: str
) -> None:
    for number in range(1, 7):
        deadline = closing(1010) if number == 4 else NOW + timedelta(minutes=30)
        await care.shop.add_session(number, expires_at=deadline)
    await care.announce(1, 2)  # 1 is on Horizon, 2 is not
    await care.shop.settle(*[make_credit(memo=Memo.of_id(n), tx=n) for n in (3, 5, 6)])
    await care.shop.execute(
        "DELETE FROM deliveries WHERE event_id IN (SELECT id FROM events WHERE subject IN"
        " (SELECT id FROM checkout_sessions WHERE muxed_id = 3))"
    )
    await care.shop.execute(
        "DELETE FROM events WHERE subject IN (SELECT id FROM checkout_sessions WHERE muxed_id = 3)"
    )
    await care.shop.execute("DELETE FROM credits WHERE memo = int8send(5)")
    await care.shop.execute(
        "DELETE FROM payments WHERE tx_hash NOT IN (SELECT tx_hash FROM credits)"
    )
    await care.read_through(closing(1100))
    pages = Pages([make_credit(tx=1), make_credit(memo=Memo.of_id(5), tx=5)])
    engines = [create_engine(database_url) for _ in range(3)]
    reports = await asyncio.gather(
        *(
            replace(
                Care(care.shop, pages).recovery,
                engine=engine,
                settler=replace(care.shop.settler, engine=engine),
                rng=Random(n),
            ).run_once()
            for n, engine in enumerate(engines)
        )
    )
    for engine in engines:
        await engine.dispose()
    assert sum(report.marked for report in reports) == 1
    assert sum(report.expired for report in reports) == 1
    assert sum(report.returned for report in reports) == 1
    assert sum(report.settled for report in reports) == 2
    statuses = [(await care.shop.session(number))[0] for number in range(1, 7)]
    assert statuses == ["paid", "pending", "paid", "expired", "paid", "paid"]
    assert await care.shop.rows(
        "SELECT type, count(*), count(DISTINCT subject) FROM events GROUP BY type ORDER BY type"
    ) == [("checkout.session.expired", 1, 1), ("checkout.session.paid", 4, 4)]
    assert await care.shop.rows(
        "SELECT cause, count(*) FROM session_transitions GROUP BY cause ORDER BY cause"
    ) == [("announced", 2), ("credited_in_full", 4), ("deadline_passed", 1), ("untraced", 1)]


async def test_recovery_and_the_live_stream_at_the_same_moment_settle_once(
    care: Care, database_url: str
) -> None:
    numbers = range(1, 21)
    for number in numbers:
        await care.shop.add_session(number)
    await care.announce(*numbers)
    credits_ = [make_credit(memo=Memo.of_id(n), tx=n) for n in numbers]
    care.pages.credits = credits_
    engine = create_engine(database_url)
    claim = await care.shop.claim()
    live = replace(care.shop.settler, engine=engine)
    batch = make_batch(credits_, claim.position)
    await asyncio.gather(care.run(), live.settle(Order(batch, "live", claim)))
    await engine.dispose()
    assert [await care.shop.session(n) for n in numbers] == [("paid", 100)] * 20
    assert await care.shop.rows("SELECT count(*) FROM events") == [(20,)]
    assert await care.shop.rows("SELECT count(*) FROM quarantine") == [(0,)]


async def test_the_loop_repairs_at_once_then_expires_between_and_stops_when_told(
    care: Care,
) -> None:
    await care.shop.add_session(1)
    await care.shop.add_session(2, expires_at=closing(1010))
    await care.announce(1)
    stop, beats = asyncio.Event(), 0
    moments = iter([NOW + timedelta(seconds=n) for n in range(1000)])

    class Beats(Progress):
        def beat(self, name: str, now: datetime) -> None:
            nonlocal beats
            super().beat(name, now)
            beats += 1
            if care.pages.asked:
                care.pages.away = {ACCOUNT}  # a second run would fail to search
            if beats == 4:  # a look-up, a page, an account, a run
                stop.set()

    await care.read_through(closing(1100))
    progress = Beats()
    loop = replace(
        care.recovery, clock=lambda: next(moments), timing=Timing(interval_s=600, expire_s=0.001)
    )
    await loop.run(stop, progress)
    assert await care.shop.session(1) == ("pending", 0)
    assert await care.shop.session(2) == ("expired", 0)
    assert len(care.pages.asked) == 1, "one run in the interval"
    assert progress.stale(NOW + timedelta(days=1)) == [], "a loop that ended is not missed"


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


async def test_a_long_search_on_a_slow_horizon_is_no_loop_that_hangs_and_a_stop_cuts_it_off(
    care: Care,
) -> None:
    await care.shop.add_session()
    await care.announce(1)
    care.pages.credits = [make_credit(1, tx=n, memo=Memo.of_id(77)) for n in range(1, 10)]
    care.pages.size = 1
    clock, progress, stop, asked = Clock(), Progress(), asyncio.Event(), asyncio.Event()

    async def answer_slowly(_after: Position) -> None:
        assert progress.stale(clock.now) == []
        clock.now += timedelta(minutes=9)
        if len(care.pages.asked) == 5:
            asked.set()
            await asyncio.Event().wait()  # now it hangs

    care.pages.meanwhile = answer_slowly
    running = asyncio.create_task(replace(care.recovery, clock=clock).run(stop, progress))
    await asyncio.wait(
        {running, asyncio.ensure_future(asked.wait())}, return_when="FIRST_COMPLETED"
    )
    assert not running.done()
    hanging_at = clock.now + timedelta(minutes=9)
    assert progress.stale(hanging_at) == ["recover"]
    stop.set()
    await running
    assert await care.shop.session() == ("processing", 0)


async def test_held_credits_that_nobody_was_told_of_are_told_once(care: Care) -> None:
    """As after an upgrade from a version that did not tell."""
    await care.shop.add_session()
    wrong, nameless = make_credit(asset=USDC), make_credit(tx=2, memo=Memo.none())
    await care.shop.settle(wrong, nameless, make_credit(40, tx=3))
    told = "SELECT id, operation_id, payload FROM events ORDER BY operation_id"
    before = await care.shop.rows(told)
    await care.forget_event()
    report = await care.run()
    assert (report.told, report.healthy) == (2, True)
    assert await care.shop.rows(told) == before
    assert care.repaired("untold_credit") == 2
    assert (await care.run()).told == 0

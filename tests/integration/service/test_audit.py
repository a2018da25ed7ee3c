"""The audit on a real database: what is missing is settled, what should not be is told."""

import asyncio
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from paywatch.domain.audit import Kind
from paywatch.domain.ledger import Batch, Credit, LedgerRecord, Memo, Position
from paywatch.errors import HorizonUnavailable, NotFound
from paywatch.service.audit import Auditor, Timing
from paywatch.service.audit_report import AuditReport
from paywatch.service.recover import Recovery
from paywatch.telemetry import Progress
from support import ACCOUNT, NOW, START, USDC, Shop, address, batch_of, closing, make_credit
from support.audits import AuditPages
from support.pages import TIP, Pages
from support.statements import statements_of

OTHER = address("other shop")
READ = Position.after_ledger(1900)  # where the cursor stands
EVENTS = "SELECT type FROM events ORDER BY type"


@dataclass
class Books:
    """A shop whose stream has read up to READ, a Horizon, and an auditor between them."""

    shop: Shop
    horizon: AuditPages = field(default_factory=AuditPages)

    @property
    def auditor(self) -> Auditor:
        return Auditor(
            self.shop.engine,
            self.shop.settler,
            self.horizon,
            lambda: NOW,
            Random(1),
            self.shop.metrics,
            Timing(window_s=7200),
        )

    @property
    def ledger(self) -> Pages:
        return self.horizon.pages

    async def run(self) -> AuditReport:
        return await self.auditor.run_once()

    def metric(self, name: str, **labels: str) -> float | None:
        return self.shop.metrics.registry.get_sample_value(f"paywatch_{name}", labels)

    async def read_upto(self, position: Position, account: str = ACCOUNT) -> None:
        await self.shop.execute(
            "UPDATE cursors SET position = :at WHERE account = :account",
            at=int(position),
            account=account,
        )

    async def hold(self, *credits_: Credit) -> None:
        """The live stream has settled these, and the ledger has them."""
        await self.shop.settle(*credits_)
        self.ledger.credits += credits_


@pytest.fixture
async def books(shop: Shop) -> Books:
    books = Books(shop)
    await books.read_upto(READ)
    return books


async def second_shop(books: Books) -> Shop:
    other = Shop(books.shop.engine, account=OTHER, merchant_id=uuid4(), endpoint_id=uuid4())
    await other.open()
    await books.read_upto(READ, OTHER)
    return other


async def follow_by_network(books: Books, position: Position = READ) -> None:
    """One stream reads everybody's payments, and its position counts for all accounts."""
    await books.shop.execute("UPDATE accounts SET followed_by = 'network'")
    await books.shop.execute(
        "INSERT INTO cursors (stream, position, updated_at) VALUES ('live:network', :at, :now)",
        at=int(position),
        now=NOW,
    )


async def test_where_both_agree_it_changes_nothing(books: Books) -> None:
    for number in (1, 2):
        await books.shop.add_session(number)
    await books.hold(
        make_credit(30),
        make_credit(70, op=2, inner_tx_hash="ab" * 32, muxed_id=2**64 - 1),
        make_credit(1, ledger=1500, asset=USDC, memo=Memo.none(), change_index=4),
    )
    before = await books.shop.rows("SELECT * FROM credits ORDER BY operation_id")
    report = await books.run()
    assert (report.accounts, report.missing, report.mismatches) == (1, 0, 0)
    assert report.healthy
    assert await books.shop.rows("SELECT * FROM credits ORDER BY operation_id") == before
    assert books.metric("audit_mismatches") == 0
    assert books.metric("audited_timestamp_seconds") == NOW.timestamp()


# Missing.


async def test_a_credit_that_came_behind_the_cursor_is_settled_counted_and_logged(
    books: Books,
) -> None:
    session = await books.shop.add_session()
    credit = make_credit()
    books.ledger.credits = [credit]
    with capture_logs() as logs:
        report = await books.run()
    assert (report.missing, report.settled, report.healthy) == (1, 1, True)
    assert [(f.kind, f.operation_id) for f in report.findings] == [
        (Kind.MISSING, credit.operation_id)
    ]
    assert await books.shop.session() == ("paid", 100)
    assert await books.shop.rows(EVENTS) == [("checkout.session.paid",)]
    assert books.metric("recovered_total", repair="audit") == 1
    [line] = [line for line in logs if line["event"] == "repaired"]
    assert (line["repair"], line["by"]) == ("audit", f"audit:{ACCOUNT}")
    assert [(c["operation_id"], c["session_id"]) for c in line["credits"]] == [
        (str(credit.operation_id), str(session.id))
    ]
    assert (await books.run()).missing == 0
    assert books.metric("recovered_total", repair="audit") == 1


async def test_a_late_found_payment_closed_in_time_of_an_expired_session_makes_it_paid(
    books: Books,
) -> None:
    await books.shop.add_session(expires_at=closing(1010))
    await books.shop.execute("UPDATE cursors SET read_through_at = :at", at=closing(1900))
    recovery = Recovery(
        books.shop.engine, books.shop.settler, books.ledger, lambda: NOW, Random(1),
        books.shop.metrics,
    )  # fmt: skip
    assert await recovery.expire_overdue() == 1
    books.ledger.credits = [make_credit(ledger=1009)]
    assert (await books.run()).settled == 1
    assert await books.shop.session() == ("paid", 100)
    assert await books.shop.rows("SELECT paid_how FROM checkout_sessions") == [("exact",)]
    assert await books.shop.rows(EVENTS) == [
        ("checkout.session.expired",),
        ("checkout.session.paid",),
    ]


async def test_what_lies_beyond_the_cursor_is_the_streams_business(shop: Shop) -> None:
    books = Books(shop)
    await books.shop.add_session()
    await books.read_upto(Position.after_ledger(1001))
    books.ledger.credits = [make_credit(40), make_credit(60, ledger=1002)]
    assert (await books.run()).settled == 1
    assert await books.shop.session() == ("partially_paid", 40)


async def test_what_the_stream_settles_early_is_neither_missing_nor_extra(shop: Shop) -> None:
    books = Books(shop)
    await books.read_upto(Position.after_ledger(1001))
    await books.hold(make_credit(ledger=1002))
    assert (await books.run()).findings == ()


async def test_before_the_watching_began_nothing_is_looked_for(books: Books) -> None:
    books.ledger.credits = [make_credit(ledger=999)]
    before_and_held = make_credit(ledger=998)
    await books.shop.settle(before_and_held)  # a backfill brought it; this Horizon has it no more
    report = await books.run()
    assert report.findings == ()
    assert books.horizon.asked == [(ACCOUNT, START)]


async def test_a_window_reads_the_recent_ledgers_only(books: Books) -> None:
    await replace(books.auditor, timing=Timing(window_s=3600)).run_once()
    assert books.horizon.asked == [(ACCOUNT, Position.after_ledger(2000 - 900))]


@pytest.mark.parametrize("size", [1, 2, 3, 200])
async def test_a_transaction_that_straddles_pages_is_found_whole(books: Books, size: int) -> None:
    for number in range(1, 6):
        await books.shop.add_session(number)
    paid = [make_credit(op=number, muxed_id=number) for number in range(1, 6)]
    await books.hold(paid[1], paid[3])
    books.ledger.credits, books.ledger.size = paid, size
    report = await books.run()
    assert (report.missing, report.settled, report.mismatches) == (3, 3, 0)
    for number in range(1, 6):
        assert await books.shop.session(number) == ("paid", 100)
    assert await books.shop.rows("SELECT count(*) FROM payments") == [(1,)]


async def test_a_record_that_cannot_be_read_is_put_into_quarantine_once(books: Books) -> None:
    books.ledger.others = [LedgerRecord(Position.of(1002, 1, 1), (), "amount: missing", {"id": 1})]
    report = await books.run()
    assert (report.missing, report.settled, report.quarantined) == (1, 0, 1)
    again = await books.run()
    assert (again.missing, again.quarantined, again.healthy) == (0, 0, True)
    assert await books.shop.rows("SELECT stream FROM quarantine") == [(f"audit:{ACCOUNT}",)]


async def test_what_the_stream_put_into_quarantine_is_not_missing(books: Books) -> None:
    credit = make_credit()
    await books.shop.execute(
        "INSERT INTO quarantine (stream, operation_id, raw, reason, quarantined_at)"
        " VALUES (:stream, :operation, '', 'too hostile', :now)",
        stream=f"live:{ACCOUNT}",
        operation=int(credit.operation_id),
        now=NOW,
    )
    books.ledger.credits = [credit]
    assert (await books.run()).missing == 0


async def test_a_credit_of_another_history_does_not_stand_for_one_of_this(books: Books) -> None:
    """After a reset of a test network the same position comes again, with other money."""
    await books.shop.settle(make_credit(7, memo=Memo.none()))
    await books.shop.execute(
        "INSERT INTO histories (number, start_position, began_at) VALUES (1, 0, :now)", now=NOW
    )
    await books.shop.execute("UPDATE cursors SET history = 1")
    books.ledger.credits = [make_credit(8, memo=Memo.none())]
    report = await books.run()
    assert (report.missing, report.settled, report.mismatches) == (1, 1, 0)
    assert await books.shop.rows("SELECT history, amount FROM credits ORDER BY history") == [
        (0, 7),
        (1, 8),
    ]


async def test_a_dry_run_settles_nothing(books: Books) -> None:
    await books.shop.add_session()
    books.ledger.credits = [make_credit()]
    readings = await books.auditor.readings(START, READ)
    report = await books.auditor.audit(readings, settle=False)
    assert (report.missing, report.settled) == (1, 0)
    assert await books.shop.rows("SELECT * FROM credits") == []


async def test_two_audits_at_once_repair_once(books: Books) -> None:
    await books.shop.add_session()
    books.ledger.credits = [make_credit(60), make_credit(40, ledger=1002)]
    both = asyncio.Barrier(2)

    async def together(_after: Position) -> None:
        await both.wait()

    books.ledger.meanwhile = together
    async with asyncio.timeout(30):
        first, second = await asyncio.gather(books.run(), books.run())
    assert first.missing == second.missing == 2
    assert first.settled + second.settled == 2
    assert books.metric("recovered_total", repair="audit") == 2
    assert await books.shop.session() == ("paid", 100)
    assert await books.shop.rows(EVENTS) == [("checkout.session.paid",)]


async def test_what_is_settled_while_the_page_is_read_is_not_missing(books: Books) -> None:
    credit = make_credit(memo=Memo.none())
    books.ledger.credits = [credit]

    async def a_backfill_is_faster(_after: Position) -> None:
        await books.shop.settle(credit)

    books.ledger.meanwhile = a_backfill_is_faster
    assert (await books.run()).findings == ()
    assert books.metric("recovered_total", repair="audit") == 0


# Extra and different.


@pytest.mark.breaks_invariants
async def test_a_credit_that_the_ledger_does_not_show_is_told_and_kept(books: Books) -> None:
    await books.shop.add_session()
    await books.shop.settle(make_credit())
    books.ledger.credits = [make_credit(1, ledger=1002)]
    await books.shop.settle(make_credit(1, ledger=1002))
    before = await books.shop.rows("SELECT * FROM checkout_sessions, credits")
    with capture_logs() as logs:
        report = await books.run()
    assert (report.extra, report.different, report.healthy) == (1, 0, False)
    assert [f.kind for f in report.findings] == [Kind.EXTRA]
    assert books.metric("audit_mismatches") == 1
    told = [line for line in logs if line["event"] == "audit_mismatch"]
    assert [(line["log_level"], line["kind"]) for line in told] == [("error", "extra")]
    assert [line["log_level"] for line in logs if line["event"] == "audit_run"] == ["error"]
    assert await books.shop.rows("SELECT * FROM checkout_sessions, credits") == before


async def test_a_credit_that_the_ledger_has_otherwise_is_told_and_kept(books: Books) -> None:
    await books.shop.settle(make_credit(100, memo=Memo.none()))
    books.ledger.credits = [make_credit(1, memo=Memo.none())]
    report = await books.run()
    assert (report.missing, report.extra, report.different) == (0, 0, 1)
    assert report.findings[0].problem == "amount: the ledger has 1, we hold 100"
    assert await books.shop.rows("SELECT amount FROM credits") == [(100,)]


async def test_a_credit_that_the_ledger_gives_to_another_account_is_different_not_missing(
    books: Books,
) -> None:
    await second_shop(books)
    await books.shop.settle(make_credit(memo=Memo.none(), account=OTHER))
    books.ledger.credits = [make_credit(memo=Memo.none())]
    report = await books.run()
    assert report.missing == 0
    by_account = {found.account: found for found in report.findings}
    assert {account: found.kind for account, found in by_account.items()} == {
        ACCOUNT: Kind.DIFFERENT,
        OTHER: Kind.EXTRA,
    }
    assert by_account[ACCOUNT].problem == f"account: the ledger has {ACCOUNT}, we hold {OTHER}"


async def test_a_page_that_lacks_is_read_again_before_the_alarm(books: Books) -> None:
    """Behind a balancer one instance may have a hole that another has not."""
    await books.hold(make_credit(1), make_credit(2, ledger=1002))

    def hole(number: int, batch: Batch) -> Batch:
        return replace(batch, records=batch.records[1:]) if number == 1 else batch

    books.horizon.altered = hole
    report = await books.run()
    assert (report.extra, report.healthy) == (0, True)
    assert [after for _, after in books.horizon.asked[:2]] == [START, START]


async def test_of_two_readings_that_accuse_other_credits_neither_is_believed(books: Books) -> None:
    await books.hold(*(make_credit(1, ledger=ledger) for ledger in (1001, 1002, 1003)))

    def another_hole(number: int, batch: Batch) -> Batch:
        kept = [r for r in batch.records if r.operation_id.ledger != 1000 + number]
        return replace(batch, records=tuple(kept))

    books.horizon.altered = another_hole
    assert (await books.run()).findings == ()


async def test_what_follows_the_last_record_is_extra_only_when_every_instance_would_show_it(
    books: Books,
) -> None:
    """An empty page claims a tip that another instance may have told, which is ahead of it."""
    await books.shop.settle(make_credit(1, ledger=1899))
    books.ledger.tip = Position.after_ledger(1901)
    assert (await books.run()).extra == 0
    books.ledger.tip = Position.after_ledger(1899 + 5 * 60 // 5)
    assert (await books.run()).extra == 1


async def test_beyond_what_a_page_proves_nothing_is_extra(books: Books) -> None:
    await books.hold(make_credit(1), make_credit(2, ledger=1700))

    async def away(after: Position) -> None:
        if after >= make_credit().operation_id:
            raise HorizonUnavailable("timeout", "no answer in time")

    books.ledger.size, books.ledger.meanwhile = 1, away
    report = await books.run()
    assert report.extra == 0
    assert list(report.unaudited) == [ACCOUNT]


async def test_a_horizon_that_is_behind_the_span_accuses_nobody(books: Books) -> None:
    await books.shop.settle(make_credit(1, ledger=1300))
    readings = await books.auditor.readings(START, READ)
    books.ledger.tip = Position.after_ledger(1500)
    report = await books.auditor.audit(readings)
    assert report.extra == 0
    assert "ledger 1500, and ledger 1900 is to be compared" in report.unaudited[ACCOUNT]
    assert not report.healthy


@pytest.mark.parametrize("size", [1, 200])
async def test_payments_to_oneself_and_of_nothing_are_no_credits_and_no_findings(
    books: Books, size: int
) -> None:
    """Horizon lists them; to the reader of records they hold nothing."""
    await books.hold(make_credit(1), make_credit(2, ledger=1003))
    books.ledger.others = [
        LedgerRecord(Position.of(1002, 1, op), (), None, {"id": op}) for op in (1, 2)
    ]
    books.ledger.size = size
    report = await books.run()
    assert report.findings == ()
    assert report.read >= 4


# Readings.


async def test_while_horizon_is_away_for_one_account_the_others_are_audited(books: Books) -> None:
    other = await second_shop(books)
    await other.add_session(2)
    books.ledger.away = {ACCOUNT}
    books.ledger.credits = [make_credit(account=OTHER, memo=Memo.of_id(2))]
    report = await books.run()
    assert (report.accounts, report.settled) == (2, 1)
    assert report.unaudited == {ACCOUNT: "no answer in time"}
    assert books.metric("audited_timestamp_seconds") == 0, "it is not finished"


async def test_all_accounts_of_the_network_wide_stream_are_audited_in_one_reading(
    books: Books,
) -> None:
    other = await second_shop(books)
    await books.shop.add_session(1)
    await other.add_session(2)
    late = address("a late shop")
    third = Shop(books.shop.engine, account=late, merchant_id=uuid4(), endpoint_id=uuid4())
    third.position = Position.after_ledger(1500)
    await third.open()
    await follow_by_network(books)
    await books.hold(make_credit(muxed_id=1))
    books.ledger.credits += [
        make_credit(change_index=1, account=OTHER, muxed_id=2),
        make_credit(5, ledger=1400, account=late, memo=Memo.none()),  # before its watching began
        make_credit(6, ledger=1901, account=OTHER, memo=Memo.none()),  # beyond the cursor
        make_credit(7, ledger=1600, account=address("a stranger"), memo=Memo.none()),
    ]
    report = await books.run()
    assert (report.accounts, report.missing, report.settled, report.mismatches) == (3, 1, 1, 0)
    assert {account for account, _ in books.horizon.asked} == {None}
    assert await other.session(2) == ("paid", 100)
    assert (await books.run()).findings == ()


async def test_in_the_network_wide_reading_too_we_are_accused_of_what_is_not_there(
    books: Books,
) -> None:
    await second_shop(books)
    await follow_by_network(books)
    await books.shop.settle(make_credit(3, account=OTHER, memo=Memo.none()))
    books.ledger.credits = [make_credit(1, ledger=1500, memo=Memo.none())]
    report = await books.run()
    assert (report.missing, report.extra) == (1, 1)


async def test_many_credits_of_others_do_not_hide_one_that_the_ledger_does_not_show(
    books: Books,
) -> None:
    """A page's answer is bounded: what it is not about must not take the places."""
    await second_shop(books)
    late = address("a late shop")
    third = Shop(books.shop.engine, account=late, merchant_id=uuid4(), endpoint_id=uuid4())
    third.position = Position.after_ledger(1500)
    await third.open()
    await follow_by_network(books)
    await books.shop.execute(
        "UPDATE accounts SET followed_by = 'account' WHERE account = :other", other=OTHER
    )
    for ledger, account in ((1001, OTHER), (1002, late)):  # another stream's; before its watching
        crowd = (make_credit(1, ledger=ledger, op=n, account=account) for n in range(1, 102))
        await books.shop.settle(*crowd)
    await books.shop.settle(make_credit(3, ledger=1003))
    readings = await books.auditor.readings(START, READ)
    report = await books.auditor.audit(r for r in readings if r.account is None)
    assert [(f.kind, f.account) for f in report.findings] == [(Kind.EXTRA, ACCOUNT)]


async def test_some_accounts_are_audited_by_their_own_pages_whoever_follows_them(
    books: Books,
) -> None:
    await second_shop(books)
    await follow_by_network(books)
    readings = await books.auditor.readings(START, READ, [OTHER])
    assert [(r.account, dict(r.since)) for r in readings] == [(OTHER, {OTHER: START})]
    with pytest.raises(NotFound, match="is not watched"):
        await books.auditor.readings(START, READ, [address("a stranger")])


async def test_an_account_that_is_not_on_the_ledger_has_nothing_to_compare(books: Books) -> None:
    def unfunded(_number: int, batch: Batch) -> Batch:
        return Batch((), batch.after, batch.after, None, 0, unfunded=True)

    books.horizon.altered = unfunded
    assert (await books.run()).healthy
    await books.shop.settle(make_credit(1))
    report = await books.run()
    assert report.unaudited == {ACCOUNT: f"it knows nothing of {ACCOUNT}, and we do"}
    assert report.mismatches == 0


async def test_an_account_that_was_not_read_yet_is_not_asked_about(shop: Shop) -> None:
    books = Books(shop)
    report = await books.run()
    assert (report.accounts, books.horizon.asked) == (0, [])


async def test_the_statements_of_a_page_are_a_constant_number(books: Books) -> None:
    counts = []
    for first, last in ((1, 2), (3, 60), (61, 200)):
        await books.hold(*(make_credit(n, op=n, memo=Memo.none()) for n in range(first, last)))
        counts.append(await statements_of(books.run))
    assert counts == [2 + 2] * 3, "the accounts, the history, then one for each page"


# The loop.


async def test_a_stop_cuts_an_audit_off_wherever_it_waits(books: Books) -> None:
    stop, reached = asyncio.Event(), asyncio.Event()

    async def for_ever(_after: Position) -> None:
        reached.set()
        await asyncio.Event().wait()

    books.ledger.meanwhile = for_ever
    progress = Progress()
    running = asyncio.create_task(books.auditor.run(stop, progress))
    await reached.wait()
    assert progress.stale(NOW + timedelta(hours=2)) == ["audit"], "a loop that hangs is seen"
    stop.set()
    async with asyncio.timeout(10):
        await running
    assert progress.stale(NOW + timedelta(hours=2)) == []


async def test_a_horizon_that_is_away_is_audited_next_time(books: Books) -> None:
    stop, asked = asyncio.Event(), 0

    class Away(AuditPages):
        async def tip(self) -> Position:
            nonlocal asked
            asked += 1
            if asked == 2:
                stop.set()
            raise HorizonUnavailable("timeout", "no answer in time")

    books.horizon = Away()
    auditor = replace(books.auditor, timing=Timing(interval_s=0.001))
    with capture_logs() as logs:
        async with asyncio.timeout(10):
            await auditor.run(stop, Progress())
    assert [line["event"] for line in logs] == ["audit_waits"] * 2
    assert books.metric("audited_timestamp_seconds") == NOW.timestamp(), "counted from the start"


def test_the_tip_is_beyond_what_was_read() -> None:
    assert READ < TIP
    assert batch_of([], 0, TIP).closed_at == closing(2000)

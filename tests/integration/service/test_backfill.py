"""Backfill on a real database: a range of the past, read once, whatever interrupts it."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from random import Random

import pytest
from structlog.testing import capture_logs

from paywatch.domain.ledger import Credit, Memo, Position
from paywatch.errors import (
    CursorMoved,
    HistoryGap,
    HorizonError,
    HorizonUnavailable,
    NotFound,
)
from paywatch.service.backfill import Backfill, BackfillReport
from paywatch.service.settle import Order
from paywatch.store import cursors
from paywatch.store.cursors import Cursor, backfill_stream
from support import ACCOUNT, NOW, START, Shop, batch_of, make_batch, make_credit
from support.pages import TIP, Pages

NUMBERS = range(1, 8)
END = Position.after_ledger(1010)


def backfill(shop: Shop, pages: Pages) -> Backfill:
    return Backfill(shop.engine, shop.settler, pages, lambda: NOW, Random(1))


async def paid_history(shop: Shop, size: int = 2) -> Pages:
    """Seven sessions, each paid in a ledger of its own, from 1001 on."""
    for number in NUMBERS:
        await shop.add_session(number)
    return Pages([payment(number) for number in NUMBERS], size=size)


def payment(number: int) -> Credit:
    return make_credit(ledger=1000 + number, memo=Memo.of_id(number))


async def assert_settled_once(shop: Shop, numbers: range = NUMBERS) -> None:
    assert [await shop.session(number) for number in numbers] == [("paid", 100)] * len(numbers)
    for table in ("credits", "payments", "events", "session_transitions"):
        assert await shop.rows(f"SELECT count(*) FROM {table}") == [(len(numbers),)], table
    assert await shop.rows("SELECT * FROM cursors WHERE end_position IS NOT NULL") == []


async def test_a_range_is_settled_and_its_cursor_forgotten(shop: Shop) -> None:
    pages = await paid_history(shop)
    report = await backfill(shop, pages).run_range(ACCOUNT, START, END)
    assert report == BackfillReport(ACCOUNT, START, END, read=7, found=7)
    await assert_settled_once(shop)
    assert await shop.rows("SELECT position FROM cursors") == [(START,)], "the live one stands"


@pytest.mark.parametrize("size", [1, 2, 3, 200])
async def test_a_range_is_cut_at_its_ends_wherever_the_pages_end(shop: Shop, size: int) -> None:
    """`after` is exclusive, `upto` inclusive; a page's last record may lie exactly on it."""
    pages = await paid_history(shop, size)
    after, upto = payment(1).operation_id, payment(5).operation_id
    report = await backfill(shop, pages).run_range(ACCOUNT, after, upto)
    assert (report.ended_at, report.found) == (upto, 4)
    assert [(await shop.session(number))[0] for number in NUMBERS] == [
        "pending",
        *["paid"] * 4,
        "pending",
        "pending",
    ]


async def test_a_range_of_two_operations_of_one_transaction_is_cut_between_them(
    shop: Shop,
) -> None:
    await shop.add_session()
    pages = Pages([make_credit(60, op=1), make_credit(40, op=2)])
    await backfill(shop, pages).run_range(ACCOUNT, START, pages.credits[0].operation_id)
    assert await shop.session() == ("partially_paid", 60)
    await backfill(shop, pages).run_range(ACCOUNT, pages.credits[0].operation_id, END)
    assert await shop.session() == ("paid", 100)


@pytest.mark.parametrize("after", [END, END + 1, Position.after_ledger(1500)])
async def test_an_empty_range_asks_nobody_and_leaves_nothing(shop: Shop, after: int) -> None:
    pages = await paid_history(shop)
    report = await backfill(shop, pages).run_range(ACCOUNT, Position(after), END)
    assert (report.read, report.found) == (0, 0)
    assert pages.asked == []
    assert await shop.rows("SELECT count(*) FROM cursors") == [(1,)]


async def test_a_range_without_any_operation_ends_at_its_end(shop: Shop) -> None:
    report = await backfill(shop, Pages()).run_range(ACCOUNT, START, END)
    assert (report.ended_at, report.read) == (END, 0)
    assert await shop.rows("SELECT count(*) FROM cursors") == [(1,)]


async def test_a_horizon_that_is_not_at_the_end_yet_leaves_the_range_unfinished(
    shop: Shop,
) -> None:
    """A lagging instance behind a load balancer looks idle: its empty page proves nothing."""
    pages = await paid_history(shop)
    later = pages.credits[4:]
    pages.credits, pages.tip = pages.credits[:4], Position.after_ledger(1004)
    with pytest.raises(HorizonUnavailable, match="after ledger 1004, and ledger 1010") as behind:
        await backfill(shop, pages).run_range(ACCOUNT, START, END)
    assert behind.value.reason == "behind"
    pages.credits, pages.tip = pages.credits + later, TIP
    [report] = await backfill(shop, pages).resume_all()
    assert (report.began_at, report.found) == (Position.after_ledger(1004), 3)
    await assert_settled_once(shop)


@pytest.mark.parametrize("killed_at", range(4))
async def test_killed_at_any_page_it_goes_on_from_there(shop: Shop, killed_at: int) -> None:
    pages = await paid_history(shop)
    reached = [START, *[payment(n).operation_id for n in (2, 4, 6)]]

    async def kill(after: Position) -> None:
        if after == reached[killed_at]:
            raise RuntimeError("killed")

    pages.meanwhile = kill
    with pytest.raises(RuntimeError):
        await backfill(shop, pages).run_range(ACCOUNT, START, END)
    pages.meanwhile, pages.asked = None, []
    report = await backfill(shop, pages).run_range(ACCOUNT, START, END)
    assert report.began_at == reached[killed_at]
    assert pages.asked[0] == (ACCOUNT, reached[killed_at])
    await assert_settled_once(shop)


async def test_canceled_while_it_settles_it_loses_and_doubles_nothing(shop: Shop) -> None:
    pages = await paid_history(shop, size=1)
    for steps in range(0, 60, 7):
        running = asyncio.create_task(backfill(shop, pages).run_range(ACCOUNT, START, END))
        for _ in range(steps):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    await backfill(shop, pages).run_range(ACCOUNT, START, END)
    await assert_settled_once(shop)


async def test_asked_for_again_with_a_later_end_it_reads_the_rest_too(shop: Shop) -> None:
    """The stream is named by where it begins: its old end must not hide what lies behind it."""
    pages = await paid_history(shop)
    pages.away = {ACCOUNT}
    with pytest.raises(HorizonUnavailable):
        await backfill(shop, pages).run_range(ACCOUNT, START, payment(3).operation_id)
    pages.away = set()
    report = await backfill(shop, pages).run_range(ACCOUNT, START, END)
    assert report.ended_at == END
    await assert_settled_once(shop)


async def test_a_backfill_at_its_old_end_does_not_forget_the_later_one(shop: Shop) -> None:
    stream, end = backfill_stream(ACCOUNT, START), payment(3).operation_id
    async with shop.engine.begin() as conn:
        await cursors.open_stream(conn, Cursor(stream, ACCOUNT, START, end_position=end), NOW)
        claim = await cursors.claim(conn, stream, NOW)
        assert claim is not None
    await shop.settler.settle(Order(batch_of([], START, end), stream, claim))
    async with shop.engine.begin() as conn:
        await cursors.open_stream(conn, Cursor(stream, ACCOUNT, START, end_position=END), NOW)
        await cursors.close_backfill(conn, claim)
        assert [cursor.end_position for cursor in await cursors.read_unfinished(conn)] == [END]


async def test_two_at_once_on_one_range_settle_once_and_one_stands_down(shop: Shop) -> None:
    pages = await paid_history(shop, size=1)
    results = await asyncio.gather(
        *(backfill(shop, pages).run_range(ACCOUNT, START, END) for _ in range(2)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, BackfillReport) for result in results) >= 1
    assert all(isinstance(result, (BackfillReport, CursorMoved)) for result in results)
    await assert_settled_once(shop)


async def test_one_taken_over_in_the_middle_stands_down_and_leaves_the_rest(shop: Shop) -> None:
    pages = await paid_history(shop)
    taken: list[BackfillReport] = []

    async def take_over(after: Position) -> None:
        if after == payment(4).operation_id:
            pages.meanwhile = None
            of_ours = "SELECT position FROM cursors WHERE end_position IS NOT NULL"
            while await shop.rows(of_ours) != [(after,)]:
                pass  # it reads ahead: the page before is being settled
            taken.append(await backfill(shop, pages).run_range(ACCOUNT, START, END))

    pages.meanwhile = take_over
    with pytest.raises(CursorMoved):
        await backfill(shop, pages).run_range(ACCOUNT, START, END)
    assert [(report.began_at, report.found) for report in taken] == [(payment(4).operation_id, 3)]
    await assert_settled_once(shop)


async def test_beside_the_live_stream_everything_is_settled_once(shop: Shop) -> None:
    pages = await paid_history(shop, size=1)
    claim = await shop.claim()

    async def live() -> None:
        nonlocal claim
        for number in NUMBERS:
            batch = make_batch([payment(number)], claim.position)
            await shop.settler.settle(Order(batch, claim.stream, claim))
            claim = replace(claim, position=batch.upto)

    await asyncio.gather(live(), backfill(shop, pages).run_range(ACCOUNT, START, END))
    await assert_settled_once(shop)
    assert await shop.rows("SELECT position FROM cursors") == [(payment(7).operation_id,)]
    assert await shop.rows("SELECT * FROM quarantine") == []


async def test_run_again_after_its_end_it_finds_nothing_new(shop: Shop) -> None:
    pages = await paid_history(shop)
    await backfill(shop, pages).run_range(ACCOUNT, START, END)
    report = await backfill(shop, pages).run_range(ACCOUNT, START, END)
    assert (report.began_at, report.read, report.found) == (START, 7, 0)
    await assert_settled_once(shop)


async def test_resuming_leaves_to_others_what_they_finish_and_goes_on(shop: Shop) -> None:
    pages = await paid_history(shop)
    async with shop.engine.begin() as conn:
        for position in (START, payment(3).operation_id):
            stream = backfill_stream(ACCOUNT, position)
            await cursors.open_stream(
                conn, Cursor(stream, ACCOUNT, position, end_position=END), NOW
            )

    async def another_process(after: Position) -> None:
        if after == START:
            await shop.execute(
                "UPDATE cursors SET epoch = epoch + 1 WHERE end_position IS NOT NULL"
            )

    pages.meanwhile = another_process
    with capture_logs() as logs:
        reports = await backfill(shop, pages).resume_all()
    assert [report.began_at for report in reports] == [payment(3).operation_id]
    assert [line["stream"] for line in logs if line["event"] == "backfill_left"] == [
        backfill_stream(ACCOUNT, START)
    ]


@pytest.mark.parametrize("error", [HistoryGap(), HorizonUnavailable("behind", "not there yet")])
async def test_resuming_goes_on_behind_one_that_cannot_go_on(
    shop: Shop, error: HorizonError
) -> None:
    pages = await paid_history(shop)
    async with shop.engine.begin() as conn:
        for position in (START, payment(3).operation_id):
            stream = backfill_stream(ACCOUNT, position)
            await cursors.open_stream(
                conn, Cursor(stream, ACCOUNT, position, end_position=END), NOW
            )

    async def fail(after: Position) -> None:
        if after == START:
            raise error

    pages.meanwhile = fail
    with capture_logs() as logs, suppress(HorizonUnavailable):
        await backfill(shop, pages).resume_all()
    assert [line["stream"] for line in logs if line["event"] == "backfill_stopped"] == (
        [backfill_stream(ACCOUNT, START)] if isinstance(error, HistoryGap) else []
    )
    assert await shop.rows("SELECT stream FROM cursors WHERE end_position IS NOT NULL") == [
        (backfill_stream(ACCOUNT, START),)
    ]


@pytest.mark.parametrize("stream", ["backfill:x:1", f"live:{ACCOUNT}"])
async def test_what_is_no_backfill_cannot_be_resumed(shop: Shop, stream: str) -> None:
    with pytest.raises(NotFound):
        await backfill(shop, Pages()).resume(stream)


async def test_a_page_that_is_cut_says_nothing_of_the_ledgers_clock_behind_it(shop: Shop) -> None:
    pages = await paid_history(shop, size=200)
    end = payment(3).operation_id
    claims = [Cursor("backfill", ACCOUNT, START, end_position=upto) for upto in (END, end)]
    whole, cut = [await anext(backfill(shop, pages)._batches(claim)) for claim in claims]
    assert (whole.upto, whole.closed_at) == (payment(7).operation_id, payment(7).closed_at)
    assert (cut.upto, cut.closed_at, len(cut.records)) == (end, None, 3)

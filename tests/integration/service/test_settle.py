"""Settling on a real database: once, whole, and whatever the order of things."""

from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from paywatch.domain.ledger import Asset, LedgerRecord, Memo, MemoType, Position
from paywatch.errors import CursorMoved
from paywatch.service.settle import Order
from support import (
    NOW,
    USDC,
    XLM,
    Shop,
    address,
    batch_of,
    closing,
    make_batch,
    make_credit,
)
from support.statements import watched_statements

OUTCOMES = "SELECT operation_id, outcome FROM credits ORDER BY operation_id, change_index"


async def test_an_exact_payment_pays_tells_and_logs_the_transition(shop: Shop) -> None:
    session = await shop.add_session()
    credit = make_credit(100)
    await shop.settle(credit)

    assert await shop.session() == ("paid", 100)
    assert await shop.rows("SELECT paid_how, paid_at FROM checkout_sessions") == [
        ("exact", credit.closed_at)
    ]
    assert await shop.rows("SELECT tx_hash, ledger, payer FROM payments") == [
        (bytes.fromhex(credit.tx_hash), 1001, credit.payer)
    ]
    assert await shop.rows("SELECT type, subject FROM events") == [
        ("checkout.session.paid", session.id)
    ]
    assert await shop.rows("SELECT state, due_at FROM deliveries") == [("pending", NOW)]
    assert await shop.rows(
        "SELECT before, after, cause, operation_id, by FROM session_transitions"
    ) == [("pending", "paid", "credited_in_full", credit.operation_id, "test")]
    assert shop.told == 1


async def test_an_excess_is_paid_and_recorded(shop: Shop) -> None:
    await shop.add_session()
    await shop.settle(make_credit(130))
    assert await shop.session() == ("paid", 130)
    assert await shop.rows("SELECT paid_how FROM checkout_sessions") == [("over",)]
    [(payload,)] = await shop.rows("SELECT payload FROM events")
    assert b'"excess":"0.0000030"' in payload


async def test_smaller_payments_add_up_and_only_the_last_tells(shop: Shop) -> None:
    await shop.add_session()
    await shop.settle(make_credit(30, ledger=1001))
    assert await shop.session() == ("partially_paid", 30)
    assert await shop.rows("SELECT id FROM events") == []
    await shop.settle(make_credit(70, ledger=1002))
    assert await shop.session() == ("paid", 100)
    assert len(await shop.rows("SELECT id FROM events")) == 1
    assert len(await shop.rows("SELECT tx_hash FROM payments")) == 2


async def test_lesson_18_two_operations_for_one_session_in_one_batch_are_folded(
    shop: Shop,
) -> None:
    await shop.add_session()
    await shop.settle(make_credit(60, op=1), make_credit(40, op=2))
    assert await shop.session() == ("paid", 100)
    assert len(await shop.rows("SELECT tx_hash FROM payments")) == 1
    assert len(await shop.rows("SELECT id FROM events")) == 1


async def test_a_transaction_that_a_page_cuts_in_two_ends_as_in_one_batch(shop: Shop) -> None:
    """Deduplicating money by tx_hash alone would lose the second operation."""
    await shop.add_session(1)
    await shop.add_session(2)
    await shop.settle(make_credit(100, op=1, muxed_id=1))
    await shop.settle(make_credit(100, op=2, muxed_id=2))
    assert await shop.session(1) == await shop.session(2) == ("paid", 100)
    assert len(await shop.rows("SELECT tx_hash FROM payments")) == 1


async def test_a_credit_seen_twice_counts_once(shop: Shop) -> None:
    await shop.add_session()
    await shop.settle(make_credit(30))
    settled = await shop.settle(make_credit(30))
    assert settled.outcomes == ()
    assert await shop.session() == ("partially_paid", 30)


async def test_a_credit_twice_in_one_batch_counts_once(shop: Shop) -> None:
    await shop.add_session()
    [record] = make_batch([make_credit(60)]).records
    await shop.settler.settle(Order(batch_of([record, record]), "test"))
    assert await shop.session() == ("partially_paid", 60)


async def test_a_second_payment_of_a_paid_session_warns_and_changes_nothing(shop: Shop) -> None:
    await shop.add_session()
    first, second = make_credit(100, ledger=1001), make_credit(100, ledger=1002)
    await shop.settle(first)
    before = await shop.rows("SELECT * FROM checkout_sessions")
    with capture_logs() as logs:
        await shop.settle(second)
    assert await shop.rows(OUTCOMES) == [
        (first.operation_id, "applied"),
        (second.operation_id, "duplicate"),
    ]
    assert await shop.rows("SELECT * FROM checkout_sessions") == before
    assert len(await shop.rows("SELECT tx_hash FROM payments")) == 1
    assert await shop.rows("SELECT type FROM events ORDER BY type") == [
        ("checkout.session.paid",),
        ("payment.unapplied",),
    ]
    [warning] = [line for line in logs if line["log_level"] == "warning"]
    assert (warning["event"], warning["outcome"]) == ("credit_held", "duplicate")


async def test_lesson_12_what_matches_nothing_or_is_not_what_was_asked_is_held_with_its_reason(
    shop: Shop,
) -> None:
    session = await shop.add_session()
    late = int((session.expires_at - NOW) / timedelta(seconds=5)) + 1000 + 1
    await shop.settle(
        make_credit(ledger=1001, memo=Memo.none()),
        make_credit(ledger=1002, memo=Memo(MemoType.TEXT, b"01")),  # not the id 1
        make_credit(ledger=1003, asset=Asset("XLM", address("spoofer"))),
        make_credit(ledger=1004, asset=USDC),
        make_credit(ledger=late),
        make_credit(ledger=late + 1, muxed_id=77),  # muxed wins over the memo
    )
    assert [outcome for _, outcome in await shop.rows(OUTCOMES)] == [
        "unmatched",
        "unmatched",
        "wrong_asset",
        "wrong_asset",
        "late",
        "unmatched",
    ]
    assert await shop.session() == ("pending", 0)


async def test_each_held_credit_is_told_once_with_its_reason_however_often_it_is_read(
    shop: Shop,
) -> None:
    session = await shop.add_session(expires_at=closing(1010))
    other = Shop(
        shop.engine, account=address("other shop"), merchant_id=uuid4(), endpoint_id=uuid4()
    )
    await other.open()
    held = [
        make_credit(ledger=1001, asset=USDC),
        make_credit(ledger=1003),  # the second
        make_credit(ledger=1004, memo=Memo.none(), account=other.account),
    ]
    for _ in range(3):
        await shop.settle(make_credit(ledger=1002), *held)

    told = await shop.rows(
        "SELECT e.operation_id, e.change_index, e.history, e.merchant_id, d.endpoint_id,"
        " convert_from(e.payload, 'UTF8')::json -> 'data' FROM events e JOIN deliveries d"
        " ON d.event_id = e.id WHERE e.type = 'payment.unapplied' ORDER BY e.operation_id"
    )
    assert [row[:3] for row in told] == [(credit.operation_id, 0, 0) for credit in held]
    owners = [(one.merchant_id, one.endpoint_id) for one in (shop, shop, other)]
    assert [row[3:5] for row in told] == owners
    names = ("credit", "reason", "session_id", "reference")
    assert [tuple(row[5][name] for name in names) for row in told] == [
        (held[0].name, "wrong_asset", str(session.id), "order-1"),
        (held[1].name, "duplicate", str(session.id), "order-1"),
        (held[2].name, "unmatched", None, None),
    ]


async def test_a_held_credit_of_a_later_history_at_the_same_position_is_told_too(
    shop: Shop,
) -> None:
    credit = make_credit(memo=Memo.none())
    await shop.settle(credit)
    await shop.execute("INSERT INTO histories VALUES (1, 0, :now)", now=NOW)
    await shop.execute("UPDATE cursors SET history = 1")
    await shop.settle(credit)
    await shop.settle(credit)
    assert await shop.rows("SELECT history FROM events ORDER BY history") == [(0,), (1,)]


async def test_a_payment_in_the_last_second_read_an_hour_later_is_in_time(shop: Shop) -> None:
    await shop.add_session(expires_at=closing(1005))
    await shop.settle(make_credit(ledger=1005))
    assert await shop.session() == ("paid", 100)


async def test_dust_that_names_nothing_does_not_drown_the_log(shop: Shop) -> None:
    await shop.add_session()
    dust = [make_credit(1, tx=n, memo=Memo.none()) for n in range(1, 101)]
    wrong = make_credit(1, ledger=1002, asset=USDC)
    with capture_logs() as logs:
        await shop.settle(*dust, wrong)
    warned = [line for line in logs if line["log_level"] == "warning"]
    assert [line["outcome"] for line in warned[:11]] == ["wrong_asset"] + ["unmatched"] * 10
    assert (warned[11]["event"], warned[11]["more"]) == ("more_credits_held", 90)
    assert len(warned) == 12
    assert await shop.rows("SELECT count(*) FROM credits") == [(101,)]


async def test_only_what_the_live_stream_brings_says_how_fast_we_are(shop: Shop) -> None:
    await shop.add_session()
    count = "paywatch_detection_latency_seconds_count"
    await shop.settle(make_credit(1))
    assert shop.metrics.registry.get_sample_value(count) == 0
    claim = await shop.claim()
    batch = make_batch([make_credit(1, ledger=1002)], claim.position)
    await shop.settler.settle(Order(batch, claim.stream, claim))
    assert shop.metrics.registry.get_sample_value(count) == 1


async def test_an_old_payment_read_by_a_backfill_pays_no_new_session_of_the_same_memo(
    shop: Shop,
) -> None:
    await shop.add_session()
    await shop.settle(make_credit(ledger=999), make_credit(40, ledger=1001))
    assert await shop.session() == ("partially_paid", 40)
    assert [outcome for _, outcome in await shop.rows(OUTCOMES)] == ["unmatched", "applied"]


async def test_the_same_memo_on_another_account_is_another_session(shop: Shop) -> None:
    other = Shop(
        shop.engine, account=address("other shop"), merchant_id=uuid4(), endpoint_id=uuid4()
    )
    await (await other.open()).add_session(2, memo=Memo.of_id(1))
    await shop.add_session(1)
    await shop.settle(make_credit(account=other.account))
    assert await shop.session(1) == ("pending", 0)
    assert await other.session(2) == ("paid", 100)


async def test_the_cursor_moves_with_what_it_brought_and_only_from_where_it_stood(
    shop: Shop,
) -> None:
    await shop.add_session()
    claim = await shop.claim()
    batch = make_batch([make_credit()], after=claim.position)
    await shop.settler.settle(Order(batch, "live", claim))
    assert await shop.rows("SELECT position, read_through_at FROM cursors") == [
        (batch.upto, closing(1001))
    ]
    with pytest.raises(CursorMoved):
        await shop.settler.settle(Order(batch, "live", claim))


async def test_a_leader_whose_epoch_is_over_writes_nothing(shop: Shop) -> None:
    await shop.add_session()
    old = await shop.claim()
    await shop.claim()
    with pytest.raises(CursorMoved):
        await shop.settler.settle(Order(make_batch([make_credit()], old.position), "live", old))
    assert await shop.session() == ("pending", 0)
    assert await shop.rows(OUTCOMES) == []


async def test_an_empty_batch_moves_the_cursor_of_a_quiet_account(shop: Shop) -> None:
    claim = await shop.claim()
    upto = Position.after_ledger(1100)
    await shop.settler.settle(Order(batch_of([], claim.position, upto), "live", claim))
    assert await shop.rows("SELECT position, read_through_at FROM cursors") == [
        (upto, closing(1100))
    ]


async def test_a_stream_that_begins_at_the_tip_is_known_to_be_read_through_it(shop: Shop) -> None:
    """Else readiness stays red, and nothing expires, until the network closes another ledger."""
    claim = await shop.claim()
    await shop.settler.settle(Order(batch_of([], claim.position, claim.position), "live", claim))
    assert await shop.rows("SELECT position, read_through_at FROM cursors") == [
        (claim.position, closing(1000))
    ]


async def test_a_record_that_cannot_be_read_is_quarantined_and_blocks_nothing(shop: Shop) -> None:
    await shop.add_session()
    claim = await shop.claim()
    good = make_batch([make_credit(ledger=1002)]).records
    bad = LedgerRecord(Position.of(1001, 1, 1), (), "amount: missing", {"id": "x", "memo": "\0"})
    batch = batch_of([bad, *good], claim.position)
    await shop.settler.settle(Order(batch, claim.stream, claim))
    assert await shop.session() == ("paid", 100)
    assert await shop.rows("SELECT operation_id, raw, reason FROM quarantine") == [
        (bad.operation_id, b'{"id":"x","memo":"\\u0000"}', "amount: missing")
    ]
    assert shop.metrics.registry.get_sample_value("paywatch_quarantined_total") == 1


async def test_a_record_that_the_database_refuses_is_found_by_bisection(shop: Shop) -> None:
    """A stroop with a hostile value must never stop the stream."""
    await shop.add_session()
    claim = await shop.claim()
    hostile = [make_credit(1, ledger=1001 + n, payer="\0", memo=Memo.none()) for n in (0, 7, 19)]
    harmless = [
        make_credit(1, ledger=1001 + n, memo=Memo.none()) for n in range(19) if n not in (0, 7)
    ]
    batch = make_batch([*hostile, *harmless, make_credit(ledger=1030)], claim.position)
    settled = await shop.settler.settle(Order(batch, claim.stream, claim))
    assert [r.operation_id for r in settled.quarantined] == [c.operation_id for c in hostile]
    assert len(settled.outcomes) == len(harmless) + 1
    assert await shop.session() == ("paid", 100)
    assert await shop.rows("SELECT position FROM cursors") == [(batch.upto,)]


async def test_what_another_reading_can_read_leaves_the_quarantine_of_its_account_only(
    shop: Shop,
) -> None:
    """As after an upgrade and a backfill; another account's part of the operation stays."""
    await shop.add_session()
    good = make_batch([make_credit()])
    bad = LedgerRecord(good.upto, (), "type: unknown", {})
    for account in (shop.account, address("another")):
        await shop.settler.settle(Order(batch_of([bad]), f"live:{account}"))

    await shop.settler.settle(Order(good, f"backfill:{shop.account}:0"))

    assert await shop.session() == ("paid", 100)
    assert await shop.rows("SELECT stream FROM quarantine") == [(f"live:{address('another')}",)]


async def test_a_known_credit_that_is_garbled_when_read_again_is_not_quarantined(
    shop: Shop,
) -> None:
    await shop.add_session()
    await shop.settle(make_credit())
    bad = LedgerRecord(make_credit().operation_id, (), "memo: must be a string", {})
    settled = await shop.settler.settle(Order(batch_of([bad]), f"backfill:{shop.account}:0"))
    assert settled.quarantined == ()
    assert await shop.rows("SELECT * FROM quarantine") == []


async def test_a_negative_amount_is_refused_by_the_table_itself(shop: Shop) -> None:
    await shop.add_session()
    settled = await shop.settle(make_credit(-5), make_credit(100, ledger=1002))
    assert len(settled.quarantined) == 1
    assert await shop.session() == ("paid", 100)


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("size", [1, 20, 200])
async def test_lesson_7_the_number_of_statements_per_batch_is_constant(
    shop: Shop, size: int, held: bool
) -> None:
    for number in range(1, size + 1):
        await shop.add_session(number)
    claim = await shop.claim()
    asset = USDC if held else XLM
    credits_ = [make_credit(tx=n, memo=Memo.of_id(n), asset=asset) for n in range(1, size + 1)]
    with watched_statements() as statements:
        await shop.settler.settle(Order(make_batch(credits_, claim.position), "live", claim))
    assert len(statements) == 6
    assert await shop.rows("SELECT count(*) FROM events") == [(size,)]


async def test_pages_are_parsed_only_when_all_that_is_to_be_written_is_made(shop: Shop) -> None:
    """A page that took the processor earlier would hold up whoever waits for the locks."""
    await shop.add_session()
    claim = await shop.claim()
    order = Order(make_batch([make_credit()], claim.position), "live", claim)
    settler, found = shop.settler, list[bool]()
    with watched_statements(lambda _sql, _values: found.append(settler.lulls.is_now)):
        await settler.settle(order)
    assert found == [False] * 5 + [True]
    assert settler.lulls.is_now


async def test_a_muxed_id_of_64_bits_is_kept_and_matches_nothing(shop: Shop) -> None:
    await shop.add_session()
    await shop.settle(make_credit(muxed_id=2**64 - 1))
    assert await shop.rows("SELECT muxed_id, outcome FROM credits") == [(2**64 - 1, "unmatched")]


async def test_a_muxed_id_names_a_session_whose_payer_has_no_memo(shop: Shop) -> None:
    await shop.add_session(5)
    await shop.settle(replace(make_credit(), muxed_id=5, memo=Memo.none()))
    assert await shop.session(5) == ("paid", 100)

"""Each invariant finds its violation, planted by SQL behind the constraints' back, and no other."""

from datetime import datetime, timedelta
from random import Random
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from paywatch.domain.ledger import Memo
from paywatch.domain.settlement import Outcome
from paywatch.service.held import HeldCredits
from paywatch.service.recover import Recovery
from paywatch.store.invariants import INVARIANTS, SHOWN, Violation, find_violations
from support import NOW, USDC, Shop, closing, make_credit
from support.pages import Pages

PAID, PARTLY, EXPIRED, CANCELED, PENDING, CANCELED_IN_PART, PAID_LATELY = range(1, 8)
AFTERWARDS = NOW + timedelta(seconds=1)

_OF = "SELECT id FROM checkout_sessions WHERE muxed_id ="
_EXPIRES = "SELECT expires_at FROM checkout_sessions WHERE muxed_id ="
_EVENT_OF = f"SELECT id FROM events WHERE subject = ({_OF} 1)"

PLANTS: Final = {
    "paid_if_and_only_if_credited": [
        "UPDATE credits SET amount = amount - 1 WHERE outcome = 'applied' AND memo = int8send(1)",
        "DELETE FROM credits WHERE outcome = 'applied' AND memo = int8send(1)",
        "UPDATE credits SET amount = 100 WHERE outcome = 'applied' AND memo = int8send(2)",
        "UPDATE credits SET amount = 100 WHERE outcome = 'applied' AND memo = int8send(6)",
    ],
    "received_is_the_sum_of_applied_credits": [
        "UPDATE checkout_sessions SET received = received + 1 WHERE muxed_id = 2",
        f"UPDATE credits SET session_id = ({_OF} 2) WHERE memo = int8send(7)",
    ],
    "paid_says_truly_how": ["UPDATE checkout_sessions SET paid_how = 'over' WHERE muxed_id = 1"],
    "a_status_is_the_end_of_its_log": [
        (
            "UPDATE checkout_sessions SET status = 'processing', announced_at = now(),"
            " announced_tx_hash = sha256('x')"
            " WHERE muxed_id = 5"
        ),
        f"DELETE FROM session_transitions WHERE session_id = ({_OF} 2)",
        (
            "INSERT INTO session_transitions (session_id, before, after, cause, by, recorded_at)"
            f" SELECT id, 'paid', 'pending', 'untraced', 'x', now() FROM ({_OF} 1) s"
        ),
    ],
    "an_outcome_fits_its_session": [
        "UPDATE credits SET asset = 'XLM:G' WHERE outcome = 'applied' AND memo = int8send(2)",
        "UPDATE credits SET account = 'G' WHERE outcome = 'applied' AND memo = int8send(2)",
        (
            "UPDATE checkout_sessions SET expires_at = created_at + interval '1 s',"
            " accept_until = created_at + interval '1 s'"
            " WHERE muxed_id = 2"
        ),
        "UPDATE credits SET closed_at = closed_at - interval '1 minute' WHERE outcome = 'late'",
        "UPDATE credits SET outcome = 'late' WHERE outcome = 'wrong_asset'",
        "UPDATE credits SET outcome = 'wrong_asset' WHERE outcome = 'late'",
        f"UPDATE credits SET session_id = ({_OF} 2) WHERE outcome = 'duplicate'",
        f"UPDATE credits SET session_id = ({_OF} 5) WHERE outcome = 'canceled'",
    ],
    "a_payment_is_that_of_its_credits": [
        "UPDATE payments SET ledger = ledger + 1 WHERE memo = int8send(1)",
        "UPDATE payments SET closed_at = closed_at + interval '1 s' WHERE memo = int8send(1)",
        "UPDATE payments SET inner_tx_hash = tx_hash WHERE memo = int8send(1)",
        "UPDATE payments SET memo_type = 'text' WHERE memo = int8send(1)",
    ],
    "a_payment_has_an_applied_credit": [
        (
            "INSERT INTO payments (tx_hash, ledger, closed_at, payer, memo_type, memo, recorded_at)"
            " SELECT sha256('x'), ledger, closed_at, payer, memo_type, memo, recorded_at"
            " FROM payments LIMIT 1"
        ),
    ],
    "one_paid_event_per_paid_session": [
        f"DELETE FROM events WHERE subject = ({_OF} 1)",
        f"UPDATE events SET subject = ({_OF} 2) WHERE subject = ({_OF} 1)",
    ],
    "one_expired_event_per_expired_session": [
        f"DELETE FROM events WHERE subject = ({_OF} 3)",
        f"UPDATE events SET subject = ({_OF} 5) WHERE subject = ({_OF} 3)",
    ],
    "an_expired_session_was_read_past": [
        "UPDATE cursors SET read_through_at = NULL",
        f"UPDATE cursors SET read_through_at = ({_EXPIRES} {EXPIRED})",
    ],
    "one_unapplied_event_per_held_credit": [
        "DELETE FROM events WHERE type = 'payment.unapplied'",
        "UPDATE credits SET outcome = 'applied' WHERE outcome = 'duplicate'",
        (
            f"UPDATE events SET operation_id = {make_credit(tx=3).operation_id}"
            f" WHERE operation_id = {make_credit(tx=4).operation_id}"
        ),
        "UPDATE events SET history = 1 WHERE type = 'payment.unapplied'",
    ],
    "an_event_is_its_sessions_or_credits": [
        f"UPDATE events SET id = 'aaaaaaaa-aaaa-4aaa-aaaa-aaaaaaaaaaaa' WHERE subject = ({_OF} 3)",
        f"UPDATE events SET merchant_id = gen_random_uuid() WHERE subject = ({_OF} 3)",
        (
            "UPDATE events SET merchant_id = gen_random_uuid()"
            f" WHERE operation_id = {make_credit(tx=6).operation_id}"
        ),
        "UPDATE events SET type = 'payment.unapplied' WHERE type = 'checkout.session.expired'",
    ],
    "an_event_is_on_its_way_or_ended": [
        f"DELETE FROM deliveries WHERE event_id = (SELECT id FROM events WHERE subject = ({_OF} 3))"
    ],
    "a_delivery_is_what_its_attempts_made_it": [
        "DELETE FROM attempts",
        "UPDATE attempts SET status_code = 500 WHERE status_code = 200",
        "UPDATE attempts SET status_code = 201 WHERE number = 1",
        "UPDATE attempts SET number = 3 WHERE number = 2",
        f"UPDATE deliveries SET attempts_made = 1 WHERE event_id = ({_EVENT_OF})",
        f"UPDATE deliveries SET state = 'pending', ended_at = NULL WHERE event_id = ({_EVENT_OF})",
    ],
    "no_lease_outlives_its_time": [
        (
            "UPDATE deliveries SET lease_token = gen_random_uuid(),"
            " lease_until = CAST(:now AS timestamptz) - interval '11 min'"
            " WHERE state = 'pending'"
        ),
    ],
    "no_credit_is_quarantined": [
        (
            "INSERT INTO quarantine SELECT 'live:' || account, operation_id, '', 'x', :now"
            " FROM credits LIMIT 1"
        ),
    ],
    "a_cursor_is_of_the_present_history": [
        "UPDATE cursors SET history = 1",
        "INSERT INTO histories (number, start_position, began_at) VALUES (1, 0, now())",
    ],
    "an_accepted_gap_is_behind_its_cursor": [
        (
            "INSERT INTO accepted_gaps (stream, history, after_position, upto_position,"
            " accepted_at) SELECT stream, history, position, position + 1, now() FROM cursors"
        )
    ],
    "a_watched_account_is_read": [
        "DELETE FROM cursors",
        "UPDATE accounts SET start_position = start_position + 4294967296000",
    ],
}


async def trade(shop: Shop) -> None:
    """One session of each kind, credits of each outcome, deliveries of each state."""
    for number in (PAID, PARTLY, CANCELED, PENDING, CANCELED_IN_PART, PAID_LATELY):
        await shop.add_session(number)
    await shop.add_session(EXPIRED, expires_at=closing(1003))
    await cancel(shop, CANCELED)
    await shop.settle(
        make_credit(100, memo=Memo.of_id(PAID)),
        make_credit(100, tx=2, memo=Memo.of_id(PAID)),  # duplicate
        make_credit(30, tx=3, memo=Memo.of_id(PARTLY)),
        make_credit(5, tx=4, memo=Memo.of_id(PARTLY), asset=USDC),
        make_credit(5, tx=5, memo=Memo.of_id(CANCELED)),
        make_credit(5, tx=6, memo=Memo.none()),
        make_credit(40, tx=7, memo=Memo.of_id(CANCELED_IN_PART)),
        make_credit(101, tx=8, memo=Memo.of_id(PAID_LATELY), inner_tx_hash="ab" * 32),
        make_credit(5, ledger=1004, memo=Memo.of_id(EXPIRED)),  # late
    )
    await cancel(shop, CANCELED_IN_PART)
    await shop.execute("UPDATE cursors SET read_through_at = :at", at=closing(1004))
    recovery = Recovery(shop.engine, shop.settler, Pages(), lambda: NOW, Random(1), shop.metrics)
    assert await recovery.expire_overdue() == 1
    await deliver(shop)


async def cancel(shop: Shop, number: int) -> None:
    await shop.execute(
        "WITH old AS (SELECT id, status FROM checkout_sessions WHERE muxed_id = :n),"
        " new AS (UPDATE checkout_sessions SET status = 'canceled' WHERE muxed_id = :n)"
        " INSERT INTO session_transitions (session_id, before, after, cause, by, recorded_at)"
        " SELECT id, status, 'canceled', 'canceled', 'merchant', :now FROM old",
        n=number,
        now=NOW,
    )


async def deliver(shop: Shop) -> None:
    """One event delivered by the second attempt, one given up without any, one on its way."""
    await shop.execute(
        "UPDATE deliveries SET state = 'delivered', attempts_made = 2, ended_at = :now"
        f" WHERE event_id = ({_EVENT_OF})",
        now=NOW,
    )
    await shop.execute(
        "INSERT INTO attempts (event_id, endpoint_id, number, started_at, duration_ms, status_code,"
        " answer) SELECT event_id, endpoint_id, n, :now, 5, CASE n WHEN 1 THEN 503 ELSE 200 END, ''"
        " FROM deliveries, generate_series(1, 2) n WHERE state = 'delivered'",
        now=NOW,
    )
    await shop.execute(
        "UPDATE deliveries SET state = 'dead', ended_at = :now, dead_reason = 'endpoint disabled'"
        f" WHERE event_id = (SELECT id FROM events WHERE subject = ({_OF} {EXPIRED}))",
        now=NOW,
    )


async def broken(conn: AsyncConnection, since: datetime | None = None) -> set[str]:
    return {violation.invariant for violation in await find_violations(conn, NOW, since)}


async def test_lawful_trade_of_every_kind_breaks_nothing(shop: Shop) -> None:
    await trade(shop)
    assert await shop.rows("SELECT DISTINCT outcome FROM credits ORDER BY outcome") == [
        (outcome,) for outcome in sorted(set(Outcome) - {Outcome.RETURNED})
    ]
    assert await shop.rows("SELECT DISTINCT state FROM deliveries ORDER BY state") == [
        ("dead",),
        ("delivered",),
        ("pending",),
    ]
    async with shop.engine.begin() as conn:
        assert await find_violations(conn, NOW) == []


def test_every_invariant_has_its_plants() -> None:
    assert PLANTS.keys() == INVARIANTS.keys()


async def test_each_planted_violation_is_found_by_its_name_and_only_if_it_is_recent(
    shop: Shop,
) -> None:
    await trade(shop)
    missed, not_limited = [], []
    for invariant, plants in PLANTS.items():
        for plant in plants:
            async with shop.engine.connect() as conn:
                await conn.execute(text("SET LOCAL session_replication_role = replica"))
                parameters = {"now": NOW} if ":now" in plant else {}
                assert (await conn.execute(text(plant), parameters)).rowcount > 0, plant
                if invariant not in await broken(conn, NOW):
                    missed.append((invariant, plant))
                if ":since" in INVARIANTS[invariant] and await broken(conn, AFTERWARDS):
                    not_limited.append((invariant, plant))
                await conn.rollback()
    assert (missed, not_limited) == ([], [])


async def test_the_payment_of_an_old_credit_that_a_word_has_applied_lately_is_checked(
    shop: Shop,
) -> None:
    session = await shop.add_session()
    held = make_credit(memo=Memo.none())
    await shop.settle(held)
    await shop.execute("UPDATE credits SET recorded_at = :at", at=NOW - timedelta(days=30))
    await HeldCredits(shop.engine, Pages(), lambda: NOW, Random(1)).apply(held.key, session.id)
    async with shop.engine.connect() as conn:
        assert await broken(conn, NOW) == set()
        await conn.execute(text("UPDATE payments SET ledger = ledger + 1"))
        assert await broken(conn, NOW) == {
            "a_payment_has_an_applied_credit",
            "a_payment_is_that_of_its_credits",
        }
        await conn.rollback()


async def test_a_violation_says_where_and_what_and_a_flood_of_them_is_cut(shop: Shop) -> None:
    session = await shop.add_session()
    await shop.settle(make_credit(40))
    async with shop.engine.connect() as conn:
        await conn.execute(text("UPDATE checkout_sessions SET received = 41"))
        assert await find_violations(conn, NOW) == [
            Violation(
                "received_is_the_sum_of_applied_credits",
                str(session.id),
                "received 41, but 40 stroops are applied",
            )
        ]
        await conn.execute(text("SET LOCAL session_replication_role = replica"))
        await conn.execute(
            text(
                "INSERT INTO accounts SELECT 'G' || lpad(translate(n::text, '0189', 'ABCD'), 55,"
                " 'A'), :id, 0, :now FROM generate_series(1, 200) n"
            ),
            {"id": shop.merchant_id, "now": NOW},
        )
        await conn.execute(text("UPDATE checkout_sessions SET received = 40"))
        assert len(await find_violations(conn, NOW)) == SHOWN
        await conn.rollback()


async def test_an_audit_may_take_longer_than_a_settlement(shop: Shop) -> None:
    async with shop.engine.begin() as conn:
        await find_violations(conn, NOW)
        assert (await conn.execute(text("SHOW statement_timeout"))).scalar_one() == "10min"
    async with shop.engine.begin() as conn:
        assert (await conn.execute(text("SHOW statement_timeout"))).scalar_one() == "30s"

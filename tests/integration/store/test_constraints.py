"""What the tables refuse, whoever writes: the promises that code alone would not keep."""

import pytest
from sqlalchemy.exc import IntegrityError

from paywatch.domain.ledger import Memo
from support import Shop, make_credit

ATTEMPT = (
    "INSERT INTO attempts (event_id, endpoint_id, number, started_at, duration_ms, answer)"
    " SELECT event_id"
)
REFUSED = [
    ("fk_checkout_sessions_account", "UPDATE checkout_sessions SET merchant_id = :other"),
    ("uq_checkout_sessions_account_memo", "UPDATE checkout_sessions SET memo = int8send(9)"),
    ("uq_checkout_sessions_account_muxed", "UPDATE checkout_sessions SET muxed_id = 9"),
    ("ck_checkout_sessions_amount_positive", "UPDATE checkout_sessions SET amount = 0"),
    (
        "ck_checkout_sessions_paid_says_how",
        "UPDATE checkout_sessions SET status = 'paid' WHERE status = 'pending'",
    ),
    (
        "ck_checkout_sessions_paid_says_how",
        "UPDATE checkout_sessions SET status = 'pending' WHERE status = 'paid'",
    ),
    ("ck_checkout_sessions_status_known", "UPDATE checkout_sessions SET status = 'open'"),
    ("ck_checkout_sessions_memo_length", "UPDATE checkout_sessions SET memo_type = 'hash'"),
    (
        "ck_checkout_sessions_processing_says_what_and_since",
        (
            "UPDATE checkout_sessions SET status = 'processing', announced_at = created_at"
            " WHERE status = 'pending'"
        ),
    ),
    (
        "ck_checkout_sessions_processing_says_what_and_since",
        (
            "UPDATE checkout_sessions SET status = 'processing', announced_tx_hash = sha256('x')"
            " WHERE status = 'pending'"
        ),
    ),
    ("pk_credits", "UPDATE credits SET operation_id = 1"),
    ("ck_credits_amount_positive", "UPDATE credits SET amount = 0"),
    ("ck_credits_outcome_known", "UPDATE credits SET outcome = 'lost'"),
    ("ck_credits_session_if_matched", "UPDATE credits SET outcome = 'unmatched'"),
    ("fk_credits_payment_tx_hash_history", "UPDATE credits SET tx_hash = sha256('x')"),
    ("fk_credits_payment_tx_hash_history", "DELETE FROM payments"),
    ("fk_credits_account", "UPDATE credits SET account = 'somebody'"),
    ("pk_payments", "UPDATE payments SET tx_hash = sha256('x')"),
    ("uq_events_subject_type", "UPDATE events SET subject = :other"),
    ("ck_events_payload_length", "UPDATE events SET payload = decode(repeat('00', 20480), 'hex')"),
    ("ck_deliveries_ended_says_when", "UPDATE deliveries SET state = 'delivered'"),
    ("ck_deliveries_dead_says_why", "UPDATE deliveries SET state = 'dead', ended_at = due_at"),
    ("ck_deliveries_lease_whole", "UPDATE deliveries SET lease_token = :other"),
    (
        "ck_deliveries_lease_while_pending",
        (
            "UPDATE deliveries SET lease_token = :other, lease_until = due_at, ended_at = due_at,"
            " state = 'delivered'"
        ),
    ),
    (
        "pk_attempts",
        f"{ATTEMPT}, endpoint_id, 1, due_at, 5, '' FROM deliveries, generate_series(1, 2)",
    ),
    (
        "fk_attempts_event_id_endpoint_id",
        f"{ATTEMPT}, :other, 1, due_at, 5, '' FROM deliveries",
    ),
    ("ck_accounts_account_form", "UPDATE accounts SET account = 'M' || account"),
    (
        "ck_api_keys_key_sha256_length",
        "INSERT INTO api_keys SELECT id, id, 'the key itself', created_at FROM merchants",
    ),
]


@pytest.mark.parametrize(("constraint", "statement"), REFUSED)
async def test_the_table_refuses(shop: Shop, constraint: str, statement: str) -> None:
    for number in (1, 2, 3):
        await shop.add_session(number)
    await shop.settle(make_credit(tx=1), make_credit(tx=2, memo=Memo.of_id(2)))
    other = "00000000-0000-4000-8000-000000000000"
    with pytest.raises(IntegrityError, match=f'"{constraint}'):
        await shop.execute(statement, **({"other": other} if ":other" in statement else {}))

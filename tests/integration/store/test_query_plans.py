"""Query plans on full tables: the intended indexes, no sequential scan, few rows read.

What a statement costs must not grow with what lies in the tables already. The idea is pgqueuer's
`test_query_plan_regression.py`.
"""

from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

import pytest
from sqlalchemy import Connection, TextClause, text

from paywatch.domain.ledger import Memo
from paywatch.store import (
    announcements,
    audit,
    checkout,
    cursors,
    events,
    held,
    invariants,
    merchants,
    outbox,
    recovery,
    sessions,
)
from paywatch.store import credits as credit_store
from paywatch.store.rows import as_json
from support import ACCOUNT, MERCHANT_ID, NOW, make_credit
from support.plans import DUE, NEW, OLD, OPEN, SINCE, Plan

CREDITS: Final = [
    make_credit(
        ledger=0, tx=0, op=n, memo=Memo.of_id(n), muxed_id=n if n % 2 else None, account=ACCOUNT
    )
    for n in range(1000, 1200)
]
NAMES: Final = as_json(name for credit in CREDITS for name in sessions._names(credit))
AUDITED: Final = {
    "after": 19_000 << 32,
    "upto": 19_020 << 32,
    "operations": [n << 32 for n in range(19_001, 19_021, 2)],
}
KEYS: Final = as_json({"operation_id": c.operation_id, "change_index": 0} for c in CREDITS)


@pytest.fixture(scope="module")
def ids(full: Connection) -> list[str]:
    """Twenty sessions that are paid, from anywhere."""
    found = full.execute(
        text("SELECT id FROM checkout_sessions WHERE status = 'paid' ORDER BY id LIMIT 20")
    )
    return [row.id for row in found.all()]


def settled_rows(ids: list[str]) -> str:
    row = {"received": 100, "status": "paid", "paid_how": "exact", "paid_at": NOW.isoformat()}
    return as_json({"id": str(id_)} | row for id_ in ids)


def ending_rows(ids: list[str]) -> str:
    row = {"tx_hash": "ab" * 32, "announced_at": NOW.isoformat(), "cause": "untraced"}
    return as_json({"id": str(id_)} | row for id_ in ids)


def event_rows(ids: list[str]) -> str:
    row = {
        "account": ACCOUNT,
        "type": "checkout.session.expired",
        "occurred_at": NOW.isoformat(),
        "starts": 1,
        "length": 1,
    }
    return as_json({"id": str(uuid4()), "subject": str(id_)} | row for id_ in ids)


LONG: Final = 1000  # sessions, one a minute, that a longer look back takes in
LONG_SINCE: Final = NOW - timedelta(days=60) + timedelta(minutes=OLD - NEW - LONG)

KEY, MEMO_KEY, MUXED_KEY, OPEN_KEY = (
    f"{prefix}_checkout_sessions{rest}"
    for prefix, rest in (
        ("pk", ""),
        ("uq", "_account_memo_type_memo"),
        ("uq", "_account_muxed_id"),
        ("ix", "_open"),
    )
)


@pytest.mark.parametrize(
    ("statement", "values", "indexes", "most"),
    [
        (sessions._LOCK_NAMED, {"rows": NAMES}, {MEMO_KEY, MUXED_KEY, KEY}, 600),
        (credit_store._KNOWN, {"rows": KEYS}, {"pk_credits"}, 200),
        (
            sessions._WRITE_SETTLED,
            {"rows": settled_rows, "transitions": "[]", "by": "live", "now": NOW},
            {KEY},
            20,
        ),
        (sessions._UNPROVEN, {"ids": list}, {KEY, "ix_credits_session_id"}, 40),
        (events._ENQUEUE, {"rows": event_rows, "payloads": b"{}", "now": NOW}, set(), 0),
        (announcements._PROCESSING, {}, {"ix_checkout_sessions_processing"}, 30),
        (
            recovery._UNPROVEN,
            {"since": SINCE},
            {"ix_checkout_sessions_updated_at", "ix_credits_session_id"},
            3 * NEW,
        ),
        (recovery._STILL_UNPROVEN, {"ids": list}, {KEY, "ix_credits_session_id"}, 40),
        (
            recovery._UNMARKED,
            {"since": SINCE},
            {"ix_credits_recorded_at", "ix_credits_session_id", KEY},
            5 * NEW,
        ),
        (recovery._APPLIED, {"ids": list}, {"ix_credits_session_id"}, 20),
        (
            announcements._END,
            {"rows": ending_rows, "by": "recover", "now": NOW},
            {KEY},
            40,
        ),
        (recovery._OVERDUE, {}, {OPEN_KEY, KEY}, 2 * DUE),
        (recovery._EXPIRE, {"ids": [uuid4()], "now": NOW}, {KEY}, 0),
        (
            cursors._ADVANCE,
            {
                "stream": f"live:{ACCOUNT}",
                "epoch": 0,
                "after": 0,
                "upto": 1,
                "closed_at": NOW,
                "now": NOW,
            },
            {"pk_cursors"},
            1,
        ),
        (cursors._CLAIM, {"stream": f"live:{ACCOUNT}", "now": NOW}, {"pk_cursors"}, 1),
        (
            outbox._CLAIM,
            {
                "now": NOW,
                "until": NOW,
                "token": MERCHANT_ID,
                "slots": 50,
                "per_endpoint": 50,
            },
            {"ix_deliveries_due"},
            5 * NEW,
        ),
        (outbox._RELEASE, {"now": NOW}, {"ix_deliveries_leased"}, 0),
        (outbox._BURY, {"now": NOW}, {"ix_deliveries_due"}, 2 * NEW),
        (outbox._DEPTH, {"now": NOW}, {"ix_deliveries_due", "ix_deliveries_dead"}, 2 * NEW),
        # A page of the operations 19001 to 19020, of which it shows every other.
        (audit._HELD, {"account": ACCOUNT} | AUDITED, {"pk_credits"}, 30),
        (audit._HELD, {"account": None} | AUDITED, {"pk_credits"}, 30),
        (held._FIND, {"operation_id": 7, "change_index": 0}, {"pk_credits"}, 1),
        (
            held._LIST_WAITING,
            {"account": None, "outcome": None, "limit": 20},
            {"ix_credits_held"},
            20,
        ),
        (
            held._LIST_ALL,
            {"account": ACCOUNT, "outcome": None, "limit": 20},
            {"ix_credits_held", "ix_credits_resolved"},
            40,
        ),
        (
            held._RETURNED_BY,
            {"tx_hash": bytes(32), "account": ACCOUNT, "payer": "G", "asset": "native"},
            {"ix_credits_returned_by_tx"},
            3,
        ),
        (held._EVENT, {"operation_id": 7, "change_index": 0}, {"ix_events_operation_id"}, 1),
        (recovery._UNTOLD, {"since": SINCE}, {"ix_credits_recorded_at"}, 2 * NEW),
        (merchants._ACCOUNT_OF, {"merchant_id": MERCHANT_ID}, set(), 1),
        (checkout._LIST, {"status": None, "limit": 50}, {KEY}, 50),
    ],
    ids=lambda value: " ".join(value.text.split()[:6]) if isinstance(value, TextClause) else "",
)
def test_lesson_7_a_statement_reads_what_it_is_about_by_its_index(  # noqa: PLR0917 - a table's columns
    full: Connection,
    ids: list[str],
    statement: TextClause,
    values: dict[str, Any],
    indexes: set[str],
    most: int,
) -> None:
    values = {name: value(ids) if callable(value) else value for name, value in values.items()}
    plan = Plan(full, statement, **values)
    assert plan.scanned == set()
    assert indexes <= plan.indexes
    assert plan.rows_read <= most


@pytest.mark.parametrize(
    "statement", [checkout._READ, checkout._CREDITS, checkout._PAYMENTS, checkout._EVENTS]
)
def test_reading_one_session_reads_nothing_else(
    full: Connection, ids: list[str], statement: TextClause
) -> None:
    plan = Plan(full, statement, id=ids[0])
    assert plan.scanned == set()
    assert plan.rows_read <= 3


# In the order of the dictionary: every test process must collect the same.
@pytest.mark.parametrize(
    "invariant", [name for name in invariants.INVARIANTS if name != "a_watched_account_is_read"]
)
def test_lesson_16_an_invariant_reads_only_what_is_recent(full: Connection, invariant: str) -> None:
    statement = invariants.first(invariants.INVARIANTS[invariant])
    # Those that are open were opened a day ago: the longer look takes them in, too.
    for since, most in ((SINCE, 8 * NEW), (LONG_SINCE, 8 * (NEW + LONG) + 2 * OPEN)):
        values: dict[str, Any] = {"since": since, "lease_limit": NOW}
        full.execute(invariants._BY_INDEX)
        plan = Plan(full, statement, **{k: v for k, v in values.items() if f":{k}" in statement})
        assert plan.scanned == set()
        assert plan.rows_read <= most


def test_a_plan_with_a_sequential_scan_is_seen(full: Connection) -> None:
    """The canary: these checks can fail."""
    plan = Plan(full, "SELECT count(*) FROM checkout_sessions WHERE reference = 'x'")
    assert plan.scanned == {"checkout_sessions"}
    assert plan.rows_read == OLD + OPEN

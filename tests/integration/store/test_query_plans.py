"""Query plans on full tables: the intended indexes, no sequential scan, few rows read.

What a statement costs must not grow with what lies in the tables already. The idea is pgqueuer's
`test_query_plan_regression.py`.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import Connection, TextClause, create_engine, text

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
from paywatch.store.engine import sqlalchemy_url
from paywatch.store.rows import as_json
from support import ACCOUNT, MERCHANT_ID, NOW, make_credit

OLD: Final = 20_000  # sessions with all that belongs to them, done with a month ago
NEW: Final = 20  # what happened within the last hour
OPEN: Final = 6_000  # sessions that wait for money
DUE: Final = 30  # of these, overdue
BIG: Final = {
    "attempts",
    "checkout_sessions",
    "credits",
    "deliveries",
    "events",
    "payments",
    "session_transitions",
}
SINCE: Final = NOW - timedelta(hours=1)

# Sessions that were paid, told and delivered; the last NEW of them lately. Then those that are
# open: the first of them overdue, every 200th announced.
FILL: Final = f"""
INSERT INTO merchants SELECT :merchant, 'Shop', :at;
INSERT INTO endpoints (id, merchant_id, url, sealed_secret, created_at)
SELECT gen_random_uuid(), :merchant, 'https://shop.example', '', :at;
INSERT INTO accounts SELECT :account, :merchant, 0, :at;
INSERT INTO accounts
SELECT 'G' || lpad(translate(n::text, '0189', 'ABCD'), 55, 'A'), :merchant, 0, :at
  FROM generate_series(1, 1999) n;
INSERT INTO cursors (stream, account, position, read_through_at, updated_at)
SELECT 'live:' || account, account, 0, CAST(:now AS timestamptz), :now FROM accounts;
CREATE TEMP TABLE made ON COMMIT DROP AS
SELECT n, gen_random_uuid() AS id, CAST(:account AS text) AS account, int8send(n) AS memo,
       CAST(:at AS timestamptz) + n * interval '1 minute' AS opened_at,
       sha256(int8send(n)) AS tx_hash,
       CASE WHEN n > {OLD - NEW} THEN CAST(:now AS timestamptz) - interval '10 minutes'
            ELSE CAST(:at AS timestamptz) + n * interval '1 minute' END AS done_at
  FROM generate_series(1, {OLD}) n;
INSERT INTO checkout_sessions (id, merchant_id, account, memo_type, memo, muxed_id, asset, amount,
       received, status, paid_how, paid_at, expires_at, created_at, updated_at, opened_position,
       least_amount, accept_until, text_for_id)
SELECT id, :merchant, account, 'id', memo, n, 'native', 100, 100, 'paid', 'exact', done_at,
       opened_at + interval '1 hour', opened_at, done_at, n, 100,
       opened_at + interval '1 hour', true FROM made;
INSERT INTO payments (tx_hash, ledger, closed_at, payer, memo_type, memo, recorded_at)
SELECT tx_hash, 0, done_at, 'G', 'id', memo, done_at FROM made;
INSERT INTO credits (operation_id, change_index, account, asset, amount, tx_hash, payer, memo_type,
       memo, closed_at, outcome, session_id, recorded_at)
SELECT n, 0, account, 'native', 100, tx_hash, 'G', 'id', memo, done_at, 'applied', id, done_at
  FROM made;
INSERT INTO events (id, merchant_id, type, subject, payload, occurred_at, recorded_at)
SELECT id, :merchant, 'checkout.session.paid', id, repeat('x', 500)::bytea, done_at, done_at
  FROM made;
INSERT INTO deliveries (event_id, endpoint_id, state, due_at, attempts_made, ended_at)
SELECT made.id, e.id, CASE WHEN n > {OLD - NEW} THEN 'pending' ELSE 'delivered' END, done_at,
       CASE WHEN n > {OLD - NEW} THEN 0 ELSE 1 END,
       CASE WHEN n > {OLD - NEW} THEN NULL ELSE done_at END FROM made, endpoints e;
INSERT INTO attempts (event_id, endpoint_id, number, started_at, duration_ms, status_code, answer)
SELECT event_id, endpoint_id, 1, due_at, 5, 200, '' FROM deliveries WHERE state = 'delivered';
INSERT INTO session_transitions (session_id, before, after, cause, by, recorded_at)
SELECT id, 'pending', 'paid', 'credited_in_full', 'live', done_at FROM made;
INSERT INTO credits (operation_id, change_index, account, asset, amount, tx_hash, payer, memo_type,
       memo, closed_at, outcome, held_as, resolved_at, returned_by_tx, recorded_at)
SELECT {2 * OLD} + n, 0, account, 'native', 100, tx_hash, 'G', 'none', '', done_at, word.outcome,
       word.held_as, CASE WHEN word.held_as IS NOT NULL THEN done_at END,
       CASE WHEN word.held_as IS NOT NULL THEN sha256(int8send(n / 2)) END, :at
  FROM made CROSS JOIN LATERAL (
       SELECT CASE n % 2 WHEN 0 THEN 'returned' ELSE 'unmatched' END AS outcome,
              CASE n % 2 WHEN 0 THEN 'unmatched' END AS held_as) word;
INSERT INTO checkout_sessions (id, merchant_id, account, memo_type, memo, muxed_id, asset, amount,
       status, announced_at, announced_tx_hash, expires_at, created_at, updated_at,
       opened_position, least_amount, accept_until, text_for_id)
SELECT gen_random_uuid(), :merchant, :account, 'id', int8send(n), n, 'native', 100,
       CASE WHEN n % 200 = 0 THEN 'processing' ELSE 'pending' END,
       CASE WHEN n % 200 = 0 THEN CAST(:now AS timestamptz) - interval '20 minutes' END,
       sha256(int8send(n)),
       CAST(:now AS timestamptz) + (n - {OLD + DUE}) * interval '1 second' - interval '1 s',
       CAST(:now AS timestamptz) - interval '1 day', CAST(:now AS timestamptz) - interval '1 day',
       0, 100, CAST(:now AS timestamptz) + interval '30 days', true
  FROM generate_series({OLD + 1}, {OLD + OPEN}) n;
"""


@pytest.fixture(scope="module")
def full(cluster: str, template: str) -> Iterator[Connection]:
    """A connection to a database with full, analyzed tables."""
    with psycopg.connect(cluster, autocommit=True) as server:
        server.execute(f"CREATE DATABASE full_tables TEMPLATE {template}")
        url = sqlalchemy_url(cluster).set(database="full_tables")
        engine = create_engine(url)
        with engine.begin() as conn:
            parameters = {
                "merchant": MERCHANT_ID,
                "account": ACCOUNT,
                "at": NOW - timedelta(days=60),
                "now": NOW,
            }
            for statement in FILL.split(";\n"):
                wanted = {k: v for k, v in parameters.items() if f":{k}" in statement}
                if statement.strip():
                    conn.execute(text(statement), wanted)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.execute(text("VACUUM ANALYZE"))
        with engine.connect() as conn:
            yield conn
        engine.dispose()
        server.execute("DROP DATABASE full_tables WITH (FORCE)")


class Plan:
    """What a statement really read."""

    def __init__(self, conn: Connection, statement: TextClause | str, **values: Any) -> None:
        sql = statement if isinstance(statement, str) else statement.text
        explain = text(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}")
        try:
            [[document]] = conn.execute(explain, values).all()
        finally:
            conn.rollback()  # what it changed
        root = document[0]["Plan"]
        self.nodes = list(_walk(root))
        self.indexes = {node["Index Name"] for node in self.nodes if "Index Name" in node}
        self.scanned = {
            node["Relation Name"]
            for node in self.nodes
            if node["Node Type"] == "Seq Scan" and node["Relation Name"] in BIG
        }
        self.rows_read = int(sum(map(_rows_read, self.nodes)))


def _walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _walk(child)


def _rows_read(node: dict[str, Any]) -> float:
    if "Scan" not in node["Node Type"] or node.get("Relation Name") not in BIG:
        return 0
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return float(node["Actual Loops"] * (node["Actual Rows"] + removed))


CREDITS: Final = [
    make_credit(
        ledger=0, tx=0, op=n, memo=Memo.of_id(n), muxed_id=n if n % 2 else None, account=ACCOUNT
    )
    for n in range(1000, 1200)
]
NAMES: Final = as_json(name for credit in CREDITS for name in sessions._names(credit))
AUDITED: Final = {"after": 19_000, "upto": 19_020, "operations": list(range(19_001, 19_021, 2))}
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
        "payload": "\\x00",
        "occurred_at": NOW.isoformat(),
    }
    return as_json({"id": str(uuid4()), "subject": str(id_)} | row for id_ in ids)


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
        (sessions._WRITE_SETTLED, {"rows": settled_rows, "now": NOW}, {KEY}, 20),
        (sessions._UNPROVEN, {"ids": list}, {KEY, "ix_credits_session_id"}, 40),
        (events._ENQUEUE, {"rows": event_rows, "now": NOW}, set(), 0),
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
    statement = f"{invariants.INVARIANTS[invariant]} LIMIT {invariants.SHOWN}"
    values = {"since": SINCE, "lease_limit": NOW}
    plan = Plan(full, statement, **{k: v for k, v in values.items() if f":{k}" in statement})
    assert plan.scanned == set()
    assert plan.rows_read <= 8 * NEW


def test_a_plan_with_a_sequential_scan_is_seen(full: Connection) -> None:
    """The canary: these checks can fail."""
    plan = Plan(full, "SELECT count(*) FROM checkout_sessions WHERE reference = 'x'")
    assert plan.scanned == {"checkout_sessions"}
    assert plan.rows_read == OLD + OPEN

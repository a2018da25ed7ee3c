"""Full tables in a small database, and what a statement really reads of them."""

import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from psycopg.sql import Literal
from sqlalchemy import Connection, TextClause, text

from support import ACCOUNT, MERCHANT_ID, NOW

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

_POSITION: Final = "(CAST(n AS bigint) << 32)"  # each in a ledger of its own

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
       opened_at + interval '1 hour', opened_at, done_at, {_POSITION} - 1, 100,
       opened_at + interval '1 hour', true FROM made;
INSERT INTO payments (tx_hash, ledger, closed_at, payer, memo_type, memo, recorded_at)
SELECT tx_hash, n, done_at, 'G', 'id', memo, done_at FROM made;
INSERT INTO credits (operation_id, change_index, account, asset, amount, tx_hash, payer, memo_type,
       memo, closed_at, outcome, session_id, recorded_at)
SELECT {_POSITION}, 0, account, 'native', 100, tx_hash, 'G', 'id', memo, done_at, 'applied', id,
       done_at
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
SELECT {_POSITION} + {2 * OLD << 32}, 0, account, 'native', 100, tx_hash, 'G', 'none', '', done_at,
       word.outcome, word.held_as, CASE WHEN word.held_as IS NOT NULL THEN done_at END,
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


def fill(conn: Connection) -> None:
    """Fill the tables of a migrated database."""
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


_TYPES: Final = {datetime: "timestamptz", int: "bigint", UUID: "uuid"}  # as psycopg says them


class Plan:
    """What a statement really read.

    With `for_all`, by the plan that PostgreSQL makes for all values alike: from the sixth execution
    on a connection it takes that one for a prepared statement, if it looks no dearer.
    """

    def __init__(
        self,
        conn: Connection,
        statement: TextClause | str,
        *,
        for_all: bool = False,
        **values: Any,
    ) -> None:
        sql = statement if isinstance(statement, str) else statement.text
        try:
            if for_all:
                sql, values = _prepared(conn, sql, values), {}
            explain = text(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}")
            [[document]] = conn.execute(explain, values).all()
        finally:
            conn.rollback()  # what it changed
        root = document[0]["Plan"]
        self.took_ms: float = document[0]["Execution Time"]
        self.nodes = list(_walk(root))
        self.indexes = {node["Index Name"] for node in self.nodes if "Index Name" in node}
        self.scanned = {
            node["Relation Name"]
            for node in self.nodes
            if node["Node Type"] == "Seq Scan" and node["Relation Name"] in BIG
        }
        self.rows_read = int(sum(map(_rows_read, self.nodes)))


def _prepared(conn: Connection, sql: str, values: dict[str, Any]) -> str:
    """Prepare a statement with one plan for all values; gives the SQL that executes it."""
    numbered = {name: f"${number}" for number, name in enumerate(values, start=1)}
    sql = re.sub(r"(?<![\w:]):([a-z_]+)", lambda name: numbered[name[1]], sql)
    types = _list(_TYPES.get(type(value), "unknown") for value in values.values())
    literals = _list(Literal(value).as_string() for value in values.values())
    conn.execute(text("SET LOCAL plan_cache_mode = force_generic_plan"))
    conn.execute(text("DEALLOCATE ALL"))
    conn.exec_driver_sql(f"PREPARE alike{types} AS {sql}".replace("%", "%%"))
    return f"EXECUTE alike{literals}".replace(":", r"\:")


def _list(parts: Iterable[str]) -> str:
    inside = ", ".join(parts)
    return f"({inside})" if inside else ""


def _walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _walk(child)


def _rows_read(node: dict[str, Any]) -> float:
    if "Scan" not in node["Node Type"] or node.get("Relation Name") not in BIG:
        return 0
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return float(node["Actual Loops"] * (node["Actual Rows"] + removed))

"""What paywatch is held against: a bare writer of the same rows, and a naive loop."""

import time
from collections.abc import Sequence
from typing import Any, Final

import psycopg

from paywatch.domain.events import session_paid
from paywatch.domain.ledger import Credit, Position
from paywatch.domain.settlement import decide
from support import MERCHANT_ID, NOW, make_session

# The tables that settling writes, parents first, with the columns that are not generated.
WRITTEN: Final = {
    "payments": "tx_hash, inner_tx_hash, ledger, closed_at, payer, memo_type, memo, recorded_at",
    "credits": "operation_id, change_index, account, muxed_id, asset, amount, tx_hash,"
    " inner_tx_hash, payer, memo_type, memo, closed_at, outcome, session_id, recorded_at",
    "session_transitions": "session_id, before, after, cause, by, operation_id, change_index,"
    " recorded_at",
    "events": "id, merchant_id, type, subject, payload, occurred_at, recorded_at",
    "deliveries": "event_id, endpoint_id, due_at",
}
Rows = dict[str, list[tuple[Any, ...]]]

_SESSIONS = """
SELECT s.id, s.received, s.status, s.paid_how, s.paid_at FROM credits c
  JOIN checkout_sessions s ON s.id = c.session_id ORDER BY c.operation_id"""
_UPDATE = """
UPDATE checkout_sessions s SET received = r.received, status = r.status, paid_how = r.paid_how,
       paid_at = r.paid_at, updated_at = %s
  FROM unnest(%s::uuid[], %s::bigint[], %s::text[], %s::text[], %s::timestamptz[])
       AS r(id, received, status, paid_how, paid_at)
 WHERE s.id = r.id"""
_COUNTS = """
SELECT (SELECT count(*) FROM checkout_sessions WHERE status = 'paid'),
       (SELECT count(*) FROM payments), (SELECT count(*) FROM credits),
       (SELECT count(*) FROM events), (SELECT count(*) FROM deliveries)"""


def written_by_batch(url: str, size: int) -> list[Rows]:
    """Read back what was settled, by batch: each table in the order of insertion."""
    with psycopg.connect(url) as conn:
        tables = {
            table: conn.execute(f"SELECT {columns} FROM {table} ORDER BY ctid").fetchall()
            for table, columns in WRITTEN.items()
        }
        tables["checkout_sessions"] = conn.execute(_SESSIONS).fetchall()
    total = len(tables["credits"])
    return [
        {name: rows[start : start + size] for name, rows in tables.items()}
        for start in range(0, total, size)
    ]


def require_all_paid(url: str, operations: int) -> None:
    """Refuse the figure of a run that did not pay every session and tell of it.

    Raises:
        AssertionError: saying what was found.
    """
    with psycopg.connect(url) as conn:
        row = conn.execute(_COUNTS).fetchone()
    assert row == (operations,) * 5, f"not everything was settled: {row} of {operations}"


def write_bare(url: str, batches: Sequence[Rows], ends: Sequence[Position]) -> float:
    """Write rows that are known already, a transaction for each batch; gives the seconds.

    COPY into each table and one UPDATE of the sessions: no look-up, no lock, no decision.
    """
    with psycopg.connect(url) as conn:
        began = time.perf_counter()
        for rows, end in zip(batches, ends, strict=True):
            write_batch(conn, rows, end)
        return time.perf_counter() - began


def write_batch(conn: psycopg.Connection[Any], rows: Rows, end: Position) -> None:
    """Write the rows of one batch, in a transaction."""
    with conn.transaction(), conn.cursor() as cursor:
        cursor.execute("UPDATE cursors SET position = %s", [int(end)])
        columns = map(list, zip(*rows["checkout_sessions"], strict=True))
        cursor.execute(_UPDATE, [NOW, *columns])
        for table, names in WRITTEN.items():
            with cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
                for row in rows[table]:
                    copy.write_row(row)


def settle_naively(url: str, credits_: Sequence[Credit]) -> float:
    """Settle one operation after the other, each in a SERIALIZABLE transaction; gives the seconds.

    What a careful programmer writes first. It is given the credits: it neither asks Horizon nor
    reads JSON.
    """
    with psycopg.connect(url) as conn:
        conn.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        began = time.perf_counter()
        for credit in credits_:
            with conn.transaction():
                _settle_one(conn, credit)
        return time.perf_counter() - began


def _settle_one(conn: psycopg.Connection[Any], credit: Credit) -> None:
    seen = conn.execute(
        "SELECT 1 FROM payments WHERE tx_hash = %s", [bytes.fromhex(credit.tx_hash)]
    ).fetchone()
    found = conn.execute(
        "SELECT id, muxed_id, amount FROM checkout_sessions"
        " WHERE account = %s AND memo_type = %s AND memo = %s FOR UPDATE",
        [credit.account, credit.memo.type, credit.memo.value],
    ).fetchone()
    if seen is not None or found is None:
        return
    session = make_session(
        found[1],
        id=found[0],
        amount=found[2],
        account=credit.account,
        asset=credit.asset,
        expires_at=credit.closed_at,
    )
    settlement = decide(session, [credit])
    event = session_paid(settlement.session, credit)
    tx_hash, memo = bytes.fromhex(credit.tx_hash), credit.memo
    conn.execute(
        f"INSERT INTO payments ({WRITTEN['payments']}) VALUES (%s,%s,%s,%s,%s,%s,%s,%s)",
        [tx_hash, None, credit.operation_id.ledger, credit.closed_at, credit.payer, memo.type,
         memo.value, NOW],
    )  # fmt: skip
    conn.execute(
        f"INSERT INTO credits ({WRITTEN['credits']})"
        " VALUES (%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s)",
        [int(credit.operation_id), 0, credit.account, None, str(credit.asset), credit.amount,
         tx_hash, None, credit.payer, memo.type, memo.value, credit.closed_at, "applied",
         session.id, NOW],
    )  # fmt: skip
    conn.execute(
        "UPDATE checkout_sessions SET received = %s, status = 'paid', paid_how = 'exact',"
        " paid_at = %s, updated_at = %s WHERE id = %s",
        [credit.amount, credit.closed_at, NOW, session.id],
    )
    conn.execute(
        f"INSERT INTO session_transitions ({WRITTEN['session_transitions']})"
        " VALUES (%s,%s,%s,%s,%s,%s,%s,%s)",
        [session.id, "pending", "paid", "credited_in_full", "naive", int(credit.operation_id),
         0, NOW],
    )  # fmt: skip
    conn.execute(
        f"INSERT INTO events ({WRITTEN['events']}) VALUES (%s,%s,%s,%s,%s,%s,%s)",
        [event.id, MERCHANT_ID, event.type, session.id, event.payload, event.occurred_at, NOW],
    )
    conn.execute(
        "INSERT INTO deliveries (event_id, endpoint_id, due_at)"
        " SELECT %s, id, %s FROM endpoints WHERE merchant_id = %s",
        [event.id, NOW, MERCHANT_ID],
    )
    conn.execute("UPDATE cursors SET position = %s", [int(credit.operation_id)])

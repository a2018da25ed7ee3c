"""The rows that settling leaves, to be held against those of another run.

Without what is lawfully different: when a row was written, and by whom.
"""

from typing import Any, Final

import psycopg

SETTLED: Final = {
    "sessions": "SELECT id, status, received, paid_how, paid_at FROM checkout_sessions ORDER BY 1",
    "credits": "SELECT operation_id, change_index, account, muxed_id, asset, amount, tx_hash,"
    " inner_tx_hash, payer, memo_type, memo, closed_at, outcome, session_id FROM credits"
    " ORDER BY 1, 2",
    "payments": "SELECT tx_hash, inner_tx_hash, ledger, closed_at, payer, memo_type, memo"
    " FROM payments ORDER BY 1",
    "events": "SELECT e.id, e.type, e.payload, d.endpoint_id, d.state FROM events e"
    " LEFT JOIN deliveries d ON d.event_id = e.id ORDER BY 1, 4",
    "transitions": "SELECT session_id, before, after, cause, operation_id, change_index"
    " FROM session_transitions ORDER BY session_id, id",
    "cursors": "SELECT stream, position FROM cursors ORDER BY 1",
    "quarantine": "SELECT operation_id, raw, reason FROM quarantine ORDER BY 1",
}
Rows = dict[str, list[tuple[Any, ...]]]


def settled_rows(url: str) -> Rows:
    """Read all of them, from one snapshot."""
    with psycopg.connect(url) as conn:
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        return {name: conn.execute(sql).fetchall() for name, sql in SETTLED.items()}


def differences(ours: Rows, theirs: Rows) -> dict[str, int]:
    """Count the rows that only one of two runs has, by table; those without any are left out."""
    counts = {name: len(set(ours[name]) ^ set(theirs[name])) for name in SETTLED}
    in_other_order = {name for name in SETTLED if not counts[name] and ours[name] != theirs[name]}
    return {n: c for n, c in counts.items() if c} | dict.fromkeys(sorted(in_other_order), 0)

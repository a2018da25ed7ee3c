"""Credits, and the payments of the transactions that brought them: the evidence.

Rows are only ever added here. That an operation counts once is the promise of the primary key;
that an applied credit has its payment, of a foreign key.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from paywatch.domain.ledger import Asset, Credit, Memo, MemoType, Position
from paywatch.domain.settlement import Outcome
from paywatch.store import driver
from paywatch.store.rows import as_json, hexed
from paywatch.store.writes import Write

# After a reset of a test network positions come again: only those of this history are the same.
HISTORY_SQL: Final = "(SELECT coalesce(max(number), 0)::smallint FROM histories)"

# One row at least, which tells the history. The LIMIT has each credit looked up by its key,
# whatever the planner believes of a table that has only begun to fill.
_KNOWN = text(
    f"""
WITH h AS MATERIALIZED (SELECT {HISTORY_SQL} AS history)
SELECT h.history, k.operation_id, k.change_index
  FROM h LEFT JOIN (
       json_to_recordset(CAST(:rows AS json)) AS r(operation_id bigint, change_index smallint)
       CROSS JOIN LATERAL (
            SELECT c.operation_id, c.change_index FROM credits c
             WHERE c.operation_id = r.operation_id AND c.change_index = r.change_index
               AND c.history = h.history LIMIT 1) AS k) ON true"""
)

_APPLIED_BEHIND = text(
    f"""
SELECT c.* FROM json_to_recordset(CAST(:rows AS json)) AS r(
       session_id uuid, operation_id bigint, change_index smallint)
  JOIN credits c ON c.session_id = r.session_id AND c.outcome = 'applied'
   AND (c.operation_id, c.change_index) > (r.operation_id, r.change_index)
 WHERE c.history = {HISTORY_SQL}"""
)

# Two sessions paid by one transaction, or a second operation of it in a later batch, share the
# row. A concurrent writer of the same hash is a serialization failure and is tried again. In one
# order everywhere, so that two writers cannot wait for each other.
_INSERT_PAYMENTS: Final = f"""
    INSERT INTO payments (tx_hash, inner_tx_hash, ledger, closed_at, payer, memo_type, memo,
           recorded_at, history)
    SELECT DISTINCT ON (c.tx_hash) c.tx_hash, c.inner_tx_hash, c.operation_id >> 32, c.closed_at,
           c.payer, c.memo_type, c.memo, CAST(:now AS timestamptz), {HISTORY_SQL}
      FROM {{credits}} AS c WHERE {{are_to_count}}
     ORDER BY c.tx_hash, c.operation_id, c.change_index
    ON CONFLICT (tx_hash, history) DO NOTHING"""

# A row that another transaction has written since our snapshot is no conflict to pass over but a
# serialization failure, which is tried again; as a unique violation it would be taken for bad data.
# What could not be read before, and now is, leaves the quarantine of its account's streams.
_INSERT_CREDITS = text(
    f"""
WITH r AS MATERIALIZED (
    SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
           operation_id bigint, change_index smallint, account text, muxed_id numeric, asset text,
           amount bigint, tx_hash bytea, inner_tx_hash bytea, payer text, memo_type text,
           memo bytea, closed_at timestamptz, outcome text, session_id uuid)
), paid AS (
    {_INSERT_PAYMENTS.format(credits="r", are_to_count="c.outcome = 'applied'")}
), released AS (
    DELETE FROM quarantine q USING r
     WHERE q.operation_id = r.operation_id
       AND split_part(q.stream, ':', 2) IN (r.account, 'network')
       AND q.history = {HISTORY_SQL}
)
INSERT INTO credits
       (operation_id, change_index, account, muxed_id, asset, amount, tx_hash, inner_tx_hash,
        payer, memo_type, memo, closed_at, outcome, session_id, recorded_at, history)
SELECT r.*, CAST(:now AS timestamptz), {HISTORY_SQL} FROM r
ON CONFLICT (operation_id, change_index, history) DO NOTHING"""
)


_INSERT_PAYMENT = text(
    _INSERT_PAYMENTS.format(
        credits="credits",
        are_to_count="c.operation_id = :operation_id AND c.change_index = :change_index"
        f" AND c.history = {HISTORY_SQL}",
    )
)


async def known(
    conn: AsyncConnection, credits_: Iterable[Credit]
) -> tuple[int, set[tuple[int, int]]]:
    """Say which of these credits are written already, by their keys.

    Returns:
        The history of the network that is current, and the keys known in it.
    """
    rows = as_json(
        {"operation_id": credit.operation_id, "change_index": credit.change_index}
        for credit in credits_
    )
    found = await (await driver.execute(conn, _KNOWN, {"rows": rows})).fetchall()
    return found[0][0], {(row[1], row[2]) for row in found if row[1] is not None}


async def applied_behind(
    conn: AsyncConnection, completed: Mapping[UUID, Credit]
) -> dict[UUID, list[Credit]]:
    """Read what was applied to sessions already and lies behind a credit in the ledger.

    Nothing, as a rule: readers read in order.

    Args:
        conn: the connection whose transaction holds the sessions' locks.
        completed: by session, the credit.
    """
    rows = as_json(
        {
            "session_id": session_id,
            "operation_id": credit.operation_id,
            "change_index": credit.change_index,
        }
        for session_id, credit in completed.items()
    )
    found: dict[UUID, list[Credit]] = defaultdict(list)
    for row in await conn.execute(_APPLIED_BEHIND, {"rows": rows}):
        found[row.session_id].append(credit_from(row))
    return found


def insert_payment(operation_id: int, change_index: int, now: datetime) -> Write:
    """Write the payment of the transaction that brought a credit which is to count from now on."""
    key = {"operation_id": operation_id, "change_index": change_index}
    return Write(_INSERT_PAYMENT, {**key, "now": now})


def insert_credits(
    outcomes: Collection[tuple[Credit, Outcome, UUID | None]], now: datetime
) -> Write:
    """Write credits with what they did and to which session; they leave the quarantine.

    Each transaction with one that counts gets its payment, if it has none yet. All credits are
    written, or StoreError is raised: ask `known` in the same transaction.
    """
    rows = as_json(
        {
            "operation_id": credit.operation_id,
            "change_index": credit.change_index,
            "account": credit.account,
            "muxed_id": credit.muxed_id,
            "asset": str(credit.asset),
            "amount": credit.amount,
            "tx_hash": "\\x" + credit.tx_hash,
            "inner_tx_hash": _hash(credit.inner_tx_hash),
            "payer": credit.payer,
            "memo_type": credit.memo.type,
            "memo": hexed(credit.memo.value),
            "closed_at": credit.closed_at,
            "outcome": outcome,
            "session_id": session_id,
        }
        for credit, outcome, session_id in outcomes
    )
    return Write(_INSERT_CREDITS, {"rows": rows, "now": now}, rows=len(outcomes))


def credit_from(row: Row[Any]) -> Credit:
    """Build a credit from a row of its table."""
    return Credit(
        operation_id=Position(row.operation_id),
        change_index=row.change_index,
        account=row.account,
        muxed_id=None if row.muxed_id is None else int(row.muxed_id),
        asset=Asset.parse(row.asset),
        amount=row.amount,
        tx_hash=row.tx_hash.hex(),
        inner_tx_hash=row.inner_tx_hash.hex() if row.inner_tx_hash else None,
        payer=row.payer,
        memo=Memo(MemoType(row.memo_type), row.memo),
        closed_at=row.closed_at,
    )


def _hash(tx_hash: str | None) -> str | None:
    return None if tx_hash is None else "\\x" + tx_hash

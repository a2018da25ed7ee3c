"""What recovery looks for: sessions that stand where they should not, found by partial indexes."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from paywatch.domain.checkout import CheckoutSession
from paywatch.domain.ledger import Credit
from paywatch.domain.settlement import HeldCredit, Outcome
from paywatch.store.credits import credit_from
from paywatch.store.cursors import FOLLOWED_SQL
from paywatch.store.engine import look_back
from paywatch.store.rows import as_json
from paywatch.store.sessions import SESSION_COLUMNS, session_from
from paywatch.store.tables import OPEN_STATUSES_SQL

BATCH: Final = 500  # sessions that one run takes on; the next run takes the rest


# Each account has its turn: many sessions of one that cannot be repaired hold up no other's.
_IN_TURN = f"""
 ORDER BY row_number() OVER (PARTITION BY s.account ORDER BY s.opened_position), s.id
 LIMIT {BATCH}"""

_APPLIED_SUM = """
(SELECT coalesce(sum(c.amount), 0) FROM credits c
  WHERE c.session_id = s.id AND c.outcome = 'applied')"""

_UNPROVEN = text(
    f"""
SELECT {SESSION_COLUMNS} FROM checkout_sessions s
 WHERE s.status = 'paid' AND s.updated_at >= :since
   AND s.least_amount > {_APPLIED_SUM}{_IN_TURN}"""
)

_STILL_UNPROVEN = text(
    f"""
SELECT s.id FROM checkout_sessions s
 WHERE s.id = ANY(:ids) AND s.status = 'paid' AND s.least_amount > {_APPLIED_SUM}"""
)

# Enough is applied, but it is not paid; or it is paid, and nobody was told.
_IS_UNMARKED = f"""
s.least_amount <= {_APPLIED_SUM}
   AND (s.status NOT IN ('paid', 'canceled')
        OR s.status = 'paid' AND NOT EXISTS (
           SELECT FROM events e WHERE e.subject = s.id AND e.type = 'checkout.session.paid'))"""

# First what is recent, then which of it is unmarked: in one step, with a LIMIT, PostgreSQL walks
# all sessions in the order of their ids, for it expects to find so many soon.
_UNMARKED = text(
    f"""
SELECT {SESSION_COLUMNS} FROM checkout_sessions s
 WHERE s.id = ANY(ARRAY(
       WITH recent AS MATERIALIZED (
           SELECT DISTINCT c.session_id AS id FROM credits c
            WHERE c.outcome = 'applied' AND c.recorded_at >= :since)
       SELECT s.id FROM recent JOIN checkout_sessions s USING (id)
        WHERE {_IS_UNMARKED} LIMIT {BATCH}))
   AND {_IS_UNMARKED}
 ORDER BY s.id FOR UPDATE OF s"""
)

_APPLIED = text(
    """
SELECT c.* FROM credits c
 WHERE c.session_id = ANY(:ids) AND c.outcome = 'applied'
 ORDER BY c.history, c.operation_id, c.change_index"""
)

# Held credits that nobody was told of, such as those from before that was done.
_UNTOLD = text(
    f"""
WITH recent AS MATERIALIZED (
    SELECT * FROM credits WHERE recorded_at >= :since
       AND coalesce(held_as, outcome) <> 'applied'
)
SELECT c.*, coalesce(c.held_as, c.outcome) AS reason, s.id AS named, s.reference
  FROM recent c LEFT JOIN checkout_sessions s
       ON s.id = c.session_id AND c.outcome <> 'applied'  -- else by a word, not by the payer
 WHERE NOT EXISTS (
       SELECT FROM events e WHERE e.type = 'payment.unapplied' AND e.operation_id = c.operation_id
          AND e.change_index = c.change_index AND e.history = c.history)
 ORDER BY c.operation_id LIMIT {BATCH}"""
)

# One probe of the index for each account: what is open and not due is not read.
_OVERDUE = text(
    f"""
SELECT {SESSION_COLUMNS} FROM checkout_sessions s
 WHERE s.status IN ({OPEN_STATUSES_SQL}) AND s.id = ANY(ARRAY(
       SELECT due.id FROM accounts a JOIN cursors c ON c.stream = {FOLLOWED_SQL}
        CROSS JOIN LATERAL (
              SELECT o.id FROM checkout_sessions o
               WHERE o.account = a.account AND o.status IN ({OPEN_STATUSES_SQL})
                 AND o.expires_at < c.read_through_at
               ORDER BY o.expires_at LIMIT {BATCH}) due
        LIMIT {BATCH}))
 ORDER BY s.id FOR UPDATE OF s"""
)

_EXPIRE = text(
    """
UPDATE checkout_sessions s SET status = 'expired', updated_at = :now WHERE s.id = ANY(:ids)"""
)

_LOG = text(
    """
INSERT INTO session_transitions (session_id, before, after, cause, by, recorded_at)
SELECT r.*, 'recover', CAST(:now AS timestamptz)
  FROM json_to_recordset(CAST(:rows AS json)) AS r(
       session_id uuid, before text, after text, cause text)"""
)


async def find_unproven(conn: AsyncConnection, since: datetime) -> list[CheckoutSession]:
    """Find sessions that became paid since that moment without enough applied credits."""
    await look_back(conn)
    return [session_from(row) for row in await conn.execute(_UNPROVEN, {"since": since})]


async def still_unproven(conn: AsyncConnection, ids: Collection[UUID]) -> set[UUID]:
    """Say which of these sessions are paid without enough applied credits."""
    return {row.id for row in await conn.execute(_STILL_UNPROVEN, {"ids": list(ids)})}


async def lock_unmarked(conn: AsyncConnection, since: datetime) -> list[CheckoutSession]:
    """Lock sessions that have enough credits but are not paid, or were not told of."""
    await look_back(conn)
    return [session_from(row) for row in await conn.execute(_UNMARKED, {"since": since})]


async def lock_overdue(conn: AsyncConnection) -> list[CheckoutSession]:
    """Lock open sessions whose deadline their account's stream has been read past."""
    return [session_from(row) for row in await conn.execute(_OVERDUE)]


async def applied_credits(conn: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, list[Credit]]:
    """Read the applied credits of sessions, in ledger order."""
    found: dict[UUID, list[Credit]] = defaultdict(list)
    for row in await conn.execute(_APPLIED, {"ids": list(ids)}):
        found[row.session_id].append(credit_from(row))
    return found


async def find_untold(conn: AsyncConnection, since: datetime) -> list[HeldCredit]:
    """Find credits that were held since that moment, and whose merchant was not told."""
    await look_back(conn)
    return [
        HeldCredit(credit_from(row), row.history, Outcome(row.reason), row.named, row.reference)
        for row in await conn.execute(_UNTOLD, {"since": since})
    ]


async def expire(conn: AsyncConnection, ids: Collection[UUID], now: datetime) -> None:
    """Mark locked sessions as expired."""
    await conn.execute(_EXPIRE, {"ids": list(ids), "now": now})


async def log_transitions(
    conn: AsyncConnection, changes: Sequence[tuple[UUID, str, str, str]], now: datetime
) -> None:
    """Write (session, before, after, cause) into the log of transitions."""
    names = ("session_id", "before", "after", "cause")
    rows = as_json(dict(zip(names, change, strict=True)) for change in changes)
    await conn.execute(_LOG, {"rows": rows, "now": now})

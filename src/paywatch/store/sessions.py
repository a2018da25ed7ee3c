"""Checkout sessions: found by what a payer named, locked in the order of their ids."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from paywatch.domain.checkout import CheckoutSession, SessionStatus, Terms
from paywatch.domain.ledger import Asset, Credit, Memo, MemoType, Position
from paywatch.domain.settlement import Settlement
from paywatch.store import driver
from paywatch.store.credits import HISTORY_SQL
from paywatch.store.rows import as_json, hexed
from paywatch.store.writes import Write

# All of a later history than the one that a session was opened in lies behind its opening.
_OPENED_POSITION: Final = f"""
CASE WHEN s.opened_history = {HISTORY_SQL} THEN s.opened_position
     ELSE (SELECT start_position FROM histories ORDER BY number DESC LIMIT 1) END"""

SESSION_COLUMNS: Final = (
    "s.id, s.merchant_id, s.account, s.memo_type, s.memo, s.muxed_id, s.asset, s.amount,"
    f" s.received, s.status, s.expires_at, {_OPENED_POSITION} AS opened_position, s.least_amount,"
    " s.accept_until, s.text_for_id, s.reference, s.paid_at"
)

# One look-up per unique key. Rows are locked in the order of their ids, as everywhere: locks taken
# in the order of events deadlock.
_NAMED = f"""
WITH named AS MATERIALIZED (
    SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
           account text, memo_type text, memo bytea, muxed_id bigint)
)
SELECT {SESSION_COLUMNS} FROM checkout_sessions s WHERE s.id IN (
    SELECT m.id FROM named JOIN checkout_sessions m USING (account, memo_type, memo)
    UNION ALL
    SELECT x.id FROM named JOIN checkout_sessions x USING (account, muxed_id)
) ORDER BY s.id"""

_LOCK = text(f"SELECT {SESSION_COLUMNS} FROM checkout_sessions s WHERE s.id = :id FOR UPDATE OF s")
_FIND_NAMED = text(_NAMED)
_LOCK_NAMED = text(f"{_NAMED} FOR UPDATE OF s")

_WRITE_SETTLED = text(
    """
WITH settled AS (
    UPDATE checkout_sessions s
       SET received = r.received, status = r.status, paid_how = r.paid_how,
           paid_at = r.paid_at, updated_at = :now
      FROM json_to_recordset(CAST(:rows AS json)) AS r(
           id uuid, received bigint, status text, paid_how text, paid_at timestamptz)
     WHERE s.id = r.id
)
INSERT INTO session_transitions
       (session_id, before, after, cause, operation_id, change_index, by, recorded_at)
SELECT r.*, :by, CAST(:now AS timestamptz) FROM json_to_recordset(CAST(:transitions AS json)) AS r(
       session_id uuid, before text, after text, cause text, operation_id bigint,
       change_index smallint)"""
)

_UNPROVEN = text(
    """
SELECT s.id, coalesce(sum(c.amount), 0)::bigint AS applied
  FROM checkout_sessions s
  LEFT JOIN credits c ON c.session_id = s.id AND c.outcome = 'applied'
 WHERE s.id = ANY(:ids) GROUP BY s.id
HAVING coalesce(sum(c.amount), 0) < s.least_amount"""
)


async def lock(conn: AsyncConnection, session_id: UUID) -> CheckoutSession | None:
    """Lock one session."""
    row = (await conn.execute(_LOCK, {"id": session_id})).one_or_none()
    return None if row is None else session_from(row)


async def lock_named(conn: AsyncConnection, credits_: Iterable[Credit]) -> list[CheckoutSession]:
    """Lock the sessions that these credits name, by muxed id or memo, in the order of their ids."""
    return await _named(conn, _LOCK_NAMED, credits_)


async def find_named(conn: AsyncConnection, credits_: Iterable[Credit]) -> list[CheckoutSession]:
    """Read the sessions that these credits name, without a lock."""
    return await _named(conn, _FIND_NAMED, credits_)


async def _named(
    conn: AsyncConnection, statement: TextClause, credits_: Iterable[Credit]
) -> list[CheckoutSession]:
    rows = as_json(name for credit in credits_ for name in _names(credit))
    found = await driver.execute(conn, statement, {"rows": rows})
    return [session_from(row) for row in await found.fetchall()]


def _names(credit: Credit) -> list[dict[str, object]]:
    if credit.muxed_id is not None:
        # Muxed wins. Ours have 63 bits: a larger id names no session, and no BIGINT holds it.
        named = credit.muxed_id if credit.muxed_id < 2**63 else None
        return [{"account": credit.account, "muxed_id": named}]
    memos = [credit.memo, credit.memo.text_as_id]
    return [
        {"account": credit.account, "memo_type": memo.type, "memo": hexed(memo.value)}
        for memo in memos
        if memo is not None
    ]


def session_from(row: Sequence[Any]) -> CheckoutSession:
    """Build a session from a row that begins with SESSION_COLUMNS.

    Unpacked, as a batch has 200: to ask a row for its columns by name takes twice as long.
    """
    id_, merchant_id, account, memo_type, memo, muxed_id, asset, amount, received, *more = row
    status, expires_at, opened, least_amount, accept_until, text_for_id, reference, paid_at = more[
        :8
    ]
    return CheckoutSession(
        id=id_,
        merchant_id=merchant_id,
        account=account,
        memo=Memo(MemoType(memo_type), memo),
        muxed_id=muxed_id,
        asset=Asset.parse(asset),
        amount=amount,
        received=received,
        status=SessionStatus(status),
        expires_at=expires_at,
        opened_position=Position(opened),
        terms=Terms(least_amount, accept_until, text_for_id),
        reference=reference,
        paid_at=paid_at,
    )


async def unproven(conn: AsyncConnection, named: Iterable[CheckoutSession]) -> dict[UUID, int]:
    """Find the paid ones of these sessions that their applied credits do not pay.

    Asks nothing if none is paid, which is the rule: a second payment is rare.

    Returns:
        For each, the stroops that are applied.
    """
    paid = [session.id for session in named if session.status is SessionStatus.PAID]
    if not paid:
        return {}
    return {row.id: row.applied for row in await conn.execute(_UNPROVEN, {"ids": paid})}


def write_settled(settlements: Sequence[Settlement], by: str, now: datetime) -> Write:
    """Write what became of locked sessions, and each transition into the log.

    Args:
        settlements: those that changed something, of sessions that the transaction has locked.
        by: which stream or service did it.
        now: the wall clock.
    """
    transitions = as_json(
        {
            "session_id": settlement.session.id,
            "before": transition.before,
            "after": transition.after,
            "cause": transition.cause,
            "operation_id": transition.credit and transition.credit.operation_id,
            "change_index": transition.credit and transition.credit.change_index,
        }
        for settlement in settlements
        for transition in settlement.transitions
    )
    rows = as_json(map(_settled_row, settlements))
    values = {"rows": rows, "transitions": transitions, "by": by, "now": now}
    return Write(_WRITE_SETTLED, values)


def _settled_row(settlement: Settlement) -> dict[str, object]:
    session = settlement.session
    return {
        "id": session.id,
        "received": session.received,
        "status": session.status,
        "paid_how": session.paid_how,
        "paid_at": session.paid_at,
    }

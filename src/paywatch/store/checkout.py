"""Checkout sessions as people read them: with their payments, credits and events."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from paywatch.domain.checkout import CheckoutSession, SessionStatus
from paywatch.store.sessions import SESSION_COLUMNS, session_from

_INSERT = text(
    """
INSERT INTO checkout_sessions
       (id, merchant_id, account, memo_type, memo, muxed_id, asset, amount, expires_at,
        least_amount, accept_until, text_for_id,
        reference, created_at, updated_at, opened_position, opened_history)
VALUES (:id, :merchant_id, :account, :memo_type, :memo, :muxed_id, :asset, :amount, :expires_at,
        :least_amount, :accept_until, :text_for_id,
        :reference, :now, :now, :opened_position, :opened_history)"""
)

_READ = text(
    f"""
SELECT {SESSION_COLUMNS},
       CASE WHEN s.status = 'processing' THEN encode(s.announced_tx_hash, 'hex') END AS waits_for
  FROM checkout_sessions s WHERE s.id = :id"""
)

# Ids are UUIDv7: the newest are the greatest, and the primary key finds them.
_LIST = text(
    f"""
SELECT {SESSION_COLUMNS} FROM checkout_sessions s
 WHERE CAST(:status AS text) IS NULL OR s.status = :status
 ORDER BY s.id DESC LIMIT :limit"""
)

_CREDITS = text(
    """
SELECT operation_id, change_index, asset, amount, tx_hash, payer, closed_at, outcome
  FROM credits WHERE session_id = :id ORDER BY history, operation_id, change_index"""
)

_PAYMENTS = text(
    """
SELECT p.tx_hash, p.inner_tx_hash, p.ledger, p.closed_at, p.payer, sum(c.amount)::bigint AS amount
  FROM credits c JOIN payments p ON p.tx_hash = c.payment_tx_hash AND p.history = c.history
 WHERE c.session_id = :id GROUP BY p.tx_hash, p.history
 ORDER BY p.history, min(c.operation_id)"""
)

_EVENTS = text(
    """
SELECT e.id, e.type, e.occurred_at, d.state, d.attempts_made, d.due_at, d.ended_at, d.dead_reason
  FROM events e LEFT JOIN deliveries d ON d.event_id = e.id
 WHERE e.subject = :id ORDER BY e.recorded_at, e.id"""
)


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session and all that belongs to it; rows have the columns of the statements above."""

    session: CheckoutSession
    announced_tx_hash: str | None  # hex; what it waits for in `processing`
    credits: Sequence[Row[Any]]
    payments: Sequence[Row[Any]]
    events: Sequence[Row[Any]]


async def insert(
    conn: AsyncConnection, session: CheckoutSession, now: datetime, history: int = 0
) -> None:
    """Write a new session.

    Args:
        conn: in a transaction.
        session: as it is opened.
        now: the wall clock.
        history: that its `opened_position` is of, read with it.

    Raises:
        sqlalchemy.exc.IntegrityError: another session of the account has this memo or muxed id.
    """
    await conn.execute(
        _INSERT,
        {
            "id": session.id,
            "merchant_id": session.merchant_id,
            "account": session.account,
            "memo_type": session.memo.type,
            "memo": session.memo.value,
            "muxed_id": session.muxed_id,
            "asset": str(session.asset),
            "amount": session.amount,
            "expires_at": session.expires_at,
            "least_amount": session.terms.least_amount,
            "accept_until": session.terms.accept_until,
            "text_for_id": session.terms.text_for_id,
            "opened_position": int(session.opened_position),
            "opened_history": history,
            "reference": session.reference,
            "now": now,
        },
    )


async def read(conn: AsyncConnection, session_id: UUID) -> SessionView | None:
    """Read a session with its credits, payments and events, in their order."""
    row = (await conn.execute(_READ, {"id": session_id})).one_or_none()
    if row is None:
        return None
    credits_, payments, events = [
        (await conn.execute(statement, {"id": session_id})).all()
        for statement in (_CREDITS, _PAYMENTS, _EVENTS)
    ]
    return SessionView(session_from(row), row.waits_for, credits_, payments, events)


async def read_list(
    conn: AsyncConnection, status: SessionStatus | None, limit: int
) -> list[CheckoutSession]:
    """Read the newest sessions, of one status or of all."""
    rows = await conn.execute(_LIST, {"status": status, "limit": limit})
    return [session_from(row) for row in rows]

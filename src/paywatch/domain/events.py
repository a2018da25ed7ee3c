"""What a merchant is told: event types, derived ids and the exact payload.

An event's id is derived from what it tells, never random: the same event built again after a
crash, a retry or by another instance has the same id, and the receiver can drop the second.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID, uuid5

from paywatch.domain.checkout import CheckoutSession
from paywatch.domain.ledger import Credit, format_stroops

EVENT_NAMESPACE: Final = UUID("6f1c6f0e-7d0b-5a35-9d5e-3b1b6c6a9d40")
"""Fixed for ever: changing it would tell every merchant everything again."""


class EventType(StrEnum):
    """The types that a merchant can be told; each happens at most once for a session."""

    SESSION_PAID = "checkout.session.paid"
    SESSION_EXPIRED = "checkout.session.expired"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing to tell a merchant; `payload` is the exact body of every attempt."""

    id: UUID
    type: EventType
    session_id: UUID
    merchant_id: UUID
    occurred_at: datetime
    payload: bytes


def event_id(event_type: EventType, session_id: UUID) -> UUID:
    """Derive an event's identity from its type and subject (UUIDv5)."""
    return uuid5(EVENT_NAMESPACE, f"{event_type}:{session_id}")


def iso(moment: datetime) -> str:
    """Write an aware time as ISO 8601 in UTC, with a Z."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def session_paid(session: CheckoutSession, credit: Credit) -> Event:
    """`checkout.session.paid`, told of the session as `credit` completed it."""
    payment = {
        "tx_hash": credit.tx_hash,
        "operation_id": str(credit.operation_id),
        "ledger": credit.operation_id.ledger,
        "payer": credit.payer,
        "amount": format_stroops(credit.amount),
        "closed_at": iso(credit.closed_at),
    }
    return _event(EventType.SESSION_PAID, session, credit.closed_at, {"payment": payment})


def session_expired(session: CheckoutSession) -> Event:
    """`checkout.session.expired`; `received` says whether there is money on it."""
    return _event(EventType.SESSION_EXPIRED, session, session.expires_at, {})


def _event(
    event_type: EventType, session: CheckoutSession, occurred_at: datetime, more: dict[str, Any]
) -> Event:
    document = {
        "type": event_type,
        "timestamp": iso(occurred_at),
        "data": {
            "session_id": str(session.id),
            "status": session.status,
            "reference": session.reference,
            "account": session.account,
            "memo_type": session.memo.type,
            "memo": str(session.memo),
            "muxed_id": str(session.muxed_id),
            "asset": str(session.asset),
            "amount": format_stroops(session.amount),
            "received": format_stroops(session.received),
            "excess": format_stroops(session.excess),
            "paid_how": session.paid_how,
            "expires_at": iso(session.expires_at),
            **more,
        },
    }
    payload = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return Event(
        event_id(event_type, session.id),
        event_type,
        session.id,
        session.merchant_id,
        occurred_at,
        payload,
    )

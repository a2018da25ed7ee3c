"""What a merchant is told: event types, derived ids and the exact payload.

An event's id is derived from what it tells, never random: the same event built again after a
crash, a retry or by another instance has the same id, and the receiver can drop the second.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final
from uuid import UUID, uuid5

import orjson

from paywatch.domain.checkout import CheckoutSession
from paywatch.domain.ledger import Credit, format_stroops
from paywatch.domain.settlement import HeldCredit

EVENT_NAMESPACE: Final = UUID("6f1c6f0e-7d0b-5a35-9d5e-3b1b6c6a9d40")
"""Fixed for ever: changing it would tell every merchant everything again."""


class EventType(StrEnum):
    """The types that a merchant can be told; each happens at most once for its subject."""

    SESSION_PAID = "checkout.session.paid"
    SESSION_EXPIRED = "checkout.session.expired"
    PAYMENT_UNAPPLIED = "payment.unapplied"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing to tell the merchant of an account.

    Attributes:
        subject: the session that it tells of, or `credit_subject`.
        payload: the exact body of every attempt.
        credit: the held credit that it tells of, if it is one: operation, change and history.
    """

    id: UUID
    type: EventType
    subject: UUID
    account: str
    occurred_at: datetime
    payload: bytes
    credit: tuple[int, int, int] | None = None


def event_id(event_type: EventType, subject: UUID) -> UUID:
    """Derive an event's identity from its type and subject (UUIDv5)."""
    return uuid5(EVENT_NAMESPACE, f"{event_type}:{subject}")


def credit_subject(held: HeldCredit) -> UUID:
    """Derive the subject of a held credit's event from the credit's identity (UUIDv5).

    The history is part of it: after a reset of a test network the same position comes again, with
    other money.
    """
    operation_id, change_index, history = held.key
    return uuid5(EVENT_NAMESPACE, f"credit:{history}:{operation_id}:{change_index}")


@lru_cache(maxsize=1024)  # all of a ledger closes at one time
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


def payment_unapplied(held: HeldCredit) -> Event:
    """`payment.unapplied`: money came that pays no session, and waits for the merchant's word."""
    credit, subject = held.credit, credit_subject(held)
    told = {
        "credit": credit.name,
        "reason": held.reason,
        "session_id": held.session_id,
        "reference": held.reference,
        "account": credit.account,
        "muxed_id": None if credit.muxed_id is None else str(credit.muxed_id),
        "memo_type": credit.memo.type,
        "memo": str(credit.memo),
        "asset": str(credit.asset),
        "amount": format_stroops(credit.amount),
        "payer": credit.payer,
        "tx_hash": credit.tx_hash,
        "ledger": credit.operation_id.ledger,
        "closed_at": iso(credit.closed_at),
    }
    event_type = EventType.PAYMENT_UNAPPLIED
    return Event(
        event_id(event_type, subject),
        event_type,
        subject,
        credit.account,
        credit.closed_at,
        _payload(event_type, credit.closed_at, told),
        held.key,
    )


def _event(
    event_type: EventType, session: CheckoutSession, occurred_at: datetime, more: dict[str, Any]
) -> Event:
    told = {
        "session_id": session.id,
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
    }
    return Event(
        event_id(event_type, session.id),
        event_type,
        session.id,
        session.account,
        occurred_at,
        _payload(event_type, occurred_at, told),
    )


def _payload(event_type: EventType, occurred_at: datetime, told: dict[str, Any]) -> bytes:
    document = {"type": event_type, "timestamp": iso(occurred_at), "data": told}
    return orjson.dumps(document)

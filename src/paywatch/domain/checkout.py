"""The checkout session and the table of its transitions."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final
from uuid import UUID

from paywatch.domain.ledger import Asset, Memo, Position


class SessionStatus(StrEnum):
    """Where a checkout session stands."""

    PENDING = "pending"
    PROCESSING = "processing"  # a payer announced a transaction not seen on the ledger yet
    PARTIALLY_PAID = "partially_paid"
    PAID = "paid"
    EXPIRED = "expired"
    CANCELED = "canceled"


class Cause(StrEnum):
    """Why a checkout session changes its status."""

    ANNOUNCED = "announced"  # the payer named a transaction
    FAILED = "failed"  # the named transaction failed on the ledger
    PAYS_NOTHING = "pays_nothing"  # it succeeded, and nothing of it pays this session
    TIME_BOUNDS_PASSED = "time_bounds_passed"  # no ledger can hold it any more
    UNTRACED = "untraced"  # it did not appear in time
    CREDITED_IN_PART = "credited_in_part"
    CREDITED_IN_FULL = "credited_in_full"
    DEADLINE_PASSED = "deadline_passed"  # by the ledger's clock
    CANCELED = "canceled"


class PaidHow(StrEnum):
    """How a paid session's credits compare with what was asked, and by when."""

    EXACT = "exact"
    OVER = "over"
    UNDER = "under"  # within the merchant's tolerance
    LATE = "late"  # completed after the deadline, within the merchant's grace


_S, _C = SessionStatus, Cause

TRANSITIONS: Final[Mapping[SessionStatus, Mapping[Cause, SessionStatus]]] = MappingProxyType(
    {
        _S.PENDING: {
            _C.ANNOUNCED: _S.PROCESSING,
            _C.CREDITED_IN_PART: _S.PARTIALLY_PAID,
            _C.CREDITED_IN_FULL: _S.PAID,
            _C.DEADLINE_PASSED: _S.EXPIRED,
            _C.CANCELED: _S.CANCELED,
        },
        _S.PROCESSING: {
            _C.ANNOUNCED: _S.PROCESSING,  # another one, in place of the first
            _C.FAILED: _S.PENDING,
            _C.PAYS_NOTHING: _S.PENDING,
            _C.TIME_BOUNDS_PASSED: _S.PENDING,
            _C.UNTRACED: _S.PENDING,
            _C.CREDITED_IN_PART: _S.PARTIALLY_PAID,
            _C.CREDITED_IN_FULL: _S.PAID,
            _C.DEADLINE_PASSED: _S.EXPIRED,
            _C.CANCELED: _S.CANCELED,
        },
        _S.PARTIALLY_PAID: {
            _C.CREDITED_IN_PART: _S.PARTIALLY_PAID,
            _C.CREDITED_IN_FULL: _S.PAID,
            _C.DEADLINE_PASSED: _S.EXPIRED,
            _C.CANCELED: _S.CANCELED,
        },
        # A credit that closed in time can still be found after the deadline (Horizon may ingest
        # again behind a cursor): the customer paid in time and is served.
        _S.EXPIRED: {
            _C.CREDITED_IN_PART: _S.EXPIRED,
            _C.CREDITED_IN_FULL: _S.PAID,
        },
        _S.PAID: {},
        _S.CANCELED: {},
    }
)

OPEN: Final = frozenset(s for s in SessionStatus if Cause.DEADLINE_PASSED in TRANSITIONS[s])
"""The statuses in which a session still waits for money."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a merchant's policy comes to for one session, fixed when it is opened.

    The policy may change later; what was promised to a customer does not.
    """

    least_amount: int  # stroops that pay it: the amount less the tolerance
    accept_until: datetime  # the ledger's clock: the deadline, or the end of the grace after it
    text_for_id: bool  # whether an id memo's digits may come as a text memo


@dataclass(frozen=True, slots=True)
class CheckoutSession:
    """One expected payment, as settlement needs to know it. Amounts in stroops."""

    id: UUID
    merchant_id: UUID
    account: str
    memo: Memo
    muxed_id: int  # 63 bits; also the id memo, unless the merchant chose a memo of its own
    asset: Asset
    amount: int
    received: int
    status: SessionStatus
    expires_at: datetime
    opened_position: Position  # where its account's stream stood: no credit for it lies before
    terms: Terms
    reference: str | None
    paid_at: datetime | None = None  # the ledger's clock at the credit that completed it

    @property
    def excess(self) -> int:
        """Stroops received beyond the amount."""
        return max(0, self.received - self.amount)

    @property
    def paid_how(self) -> PaidHow | None:
        """How it was paid, if it is."""
        if self.status is not SessionStatus.PAID:
            return None
        if self.paid_at is not None and self.paid_at > self.expires_at:
            return PaidHow.LATE
        if self.received < self.amount:
            return PaidHow.UNDER
        return PaidHow.OVER if self.excess else PaidHow.EXACT

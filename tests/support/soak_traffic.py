"""A shop's day at a steady rate: sessions opened on the way, and paid in every way there is.

What must become of each is worked out from what the ledger closed, and by nothing of paywatch's.
"""

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from random import Random
from typing import Final
from uuid import UUID

from sqlalchemy.exc import OperationalError
from stellar_sdk import Asset, IdMemo, Memo, Payment, TransactionEnvelope

from paywatch.domain.checkout import CheckoutSession
from paywatch.domain.ledger import STROOPS_PER_UNIT, format_stroops
from paywatch.service.checkout import Checkout, SessionRequest
from paywatch.sim.history import AppliedTx
from paywatch.sim.wallet import NATIVE
from support.site import USD, Site

LATE_BY: Final = timedelta(seconds=3)


class Way(StrEnum):
    """How a customer pays."""

    EXACT = "exact"
    MUXED = "by the muxed address"
    PATH = "by a path payment"
    PARTS = "in two parts"
    TWICE = "twice"
    OVER = "too much"
    UNDER = "too little"
    UNNAMED = "with a memo of nobody's"
    WRONG_ASSET = "in another asset"
    LATE = "too late"
    NOT = "not at all"


WEIGHTS: Final = {
    Way.EXACT: 60, Way.MUXED: 8, Way.PATH: 5, Way.PARTS: 5, Way.TWICE: 4, Way.OVER: 3,
    Way.UNDER: 3, Way.UNNAMED: 4, Way.WRONG_ASSET: 3, Way.LATE: 2, Way.NOT: 3,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sent:
    """One payment that was handed to the network."""

    tx_hash: str
    session: UUID | None  # whom it names
    amount: int  # stroops
    asset: str


@dataclass(slots=True)
class Due:
    """What must have become of one session."""

    expires_at: datetime
    amount: int
    asset: str
    received: int = 0
    held: int = 0

    @classmethod
    def unpaid(cls) -> "Due":
        """What nobody was told of, and nobody pays."""
        return cls(datetime.max.replace(tzinfo=UTC), 1, "native")

    @property
    def status(self) -> str:
        return "paid" if self.received >= self.amount else "expired"

    def take(self, sent: Sent, closed_at: datetime) -> None:
        fits = sent.asset == self.asset and closed_at <= self.expires_at
        if fits and self.status != "paid":
            self.received += sent.amount
        else:
            self.held += 1


@dataclass
class Traffic:
    """Customers of one shop.

    Attributes:
        expires_in: of each session.
        sent: every payment so far.
        lost: how often the database was lost while a session was opened; it may be there, unpaid.
        late: sessions whose customers wait for the deadline, the earliest first.
    """

    site: Site
    checkout: Checkout
    merchant_id: UUID
    rng: Random
    expires_in: timedelta
    sessions: dict[UUID, CheckoutSession] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)
    lost: int = 0
    late: deque[CheckoutSession] = field(default_factory=deque)

    async def visit(self) -> None:
        """Open one session, and pay it in some way; pay those whose time has passed."""
        [way] = self.rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
        asset = f"{USD.code}:{USD.issuer}" if way is Way.PATH else "native"
        amount = f"{self.rng.randint(2, 5)}.{self.rng.randint(0, 9_999_999):07d}"
        request = SessionRequest(self.merchant_id, amount, asset, expires_in=self.expires_in)
        try:
            session = await self.checkout.create_session(request)
        except OperationalError:
            self.lost += 1
            return
        self.sessions[session.id] = session
        self._pay(way, session)
        self.pay_late()

    def pay_late(self) -> None:
        """Pay what is overdue."""
        while self.late and self.late[0].expires_at + LATE_BY <= datetime.now(UTC):
            session = self.late.popleft()
            self._send(session, session.amount)

    def _pay(self, way: Way, session: CheckoutSession) -> None:
        whole = session.amount
        match way:
            case Way.MUXED:
                self._send(session, whole, muxed=True)
            case Way.UNNAMED:
                self._submit(self._native(whole, IdMemo(self.rng.getrandbits(63))), None, whole)
            case Way.WRONG_ASSET:
                issuer = self.site.network.wallet("issuer")
                envelope = issuer.pay(session.account, format_stroops(whole), USD, _memo(session))
                self._submit(envelope, session.id, whole, USD)
            case Way.LATE:
                self.late.append(session)
            case _:
                for amount in _amounts(way, whole):
                    self._send(session, amount)

    def _send(self, session: CheckoutSession, amount: int, *, muxed: bool = False) -> None:
        if not session.asset.is_native:
            lumens = format_stroops(amount * 16)  # twice what the market asks
            envelope = self.site.customer.path_receive(
                session.account, format_stroops(amount), USD, send_max=lumens, memo=_memo(session)
            )
            self._submit(envelope, session.id, amount, USD)
        elif muxed:
            to = self.site.shop.muxed(session.muxed_id)
            self._submit(self._native(amount, None, to), session.id, amount)
        else:
            self._submit(self._native(amount, _memo(session)), session.id, amount)

    def _native(self, amount: int, memo: Memo | None, to: str | None = None) -> TransactionEnvelope:
        payment = Payment(to or self.site.shop.account_id, NATIVE, format_stroops(amount))
        return self.site.network.root.build([payment], memo)

    def _submit(
        self,
        envelope: TransactionEnvelope,
        session: UUID | None,
        amount: int,
        asset: Asset = NATIVE,
    ) -> None:
        [tx_hash] = self.site.network.submit(envelope)
        named = "native" if asset.is_native() else f"{asset.code}:{asset.issuer}"
        self.sent.append(Sent(tx_hash, session, amount, named))

    def closed(self) -> list[tuple[AppliedTx, Sent]]:
        """What the ledger has of it, in the ledger's order."""
        history = self.site.network.ledger.history
        found = [(tx, sent) for sent in self.sent if (tx := history.tx(sent.tx_hash)) is not None]
        return sorted(found, key=lambda pair: pair[0].id)

    def due(self) -> dict[UUID, Due]:
        """What must have become of each session."""
        due = {
            id_: Due(session.expires_at, session.amount, str(session.asset))
            for id_, session in self.sessions.items()
        }
        for tx, sent in self.closed():
            if sent.session is not None:
                due[sent.session].take(sent, tx.closed_at)
        return due


def _memo(session: CheckoutSession) -> IdMemo:
    return IdMemo(int(str(session.memo)))


def _amounts(way: Way, whole: int) -> list[int]:
    """What is paid by the session's memo and in its asset, in stroops."""
    match way:
        case Way.PARTS:
            return [whole // 3, whole - whole // 3]
        case Way.TWICE:
            return [whole, whole]
        case Way.OVER:
            return [whole + STROOPS_PER_UNIT]
        case Way.UNDER:
            return [whole - 1]
        case Way.NOT:
            return []
    return [whole]

"""The decision: what credits do to a checkout session.

The decider only looks at values and returns what to write; it knows no clock, for lateness is
judged by the ledger's own (`Credit.closed_at`), and no store.

Credits are folded one by one in ledger order, never by transaction or batch: how a page or a
stream happened to cut the ledger then makes no difference to the result.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from uuid import UUID

from paywatch.domain.checkout import TRANSITIONS, Cause, CheckoutSession, SessionStatus
from paywatch.domain.ledger import Credit, Memo
from paywatch.errors import InvalidInput


class Outcome(StrEnum):
    """What a credit did. All but `applied` and `returned` are held: kept, and changing nothing."""

    APPLIED = "applied"
    UNMATCHED = "unmatched"  # names no session
    DUPLICATE = "duplicate"  # the session was paid already
    LATE = "late"  # closed after the session's deadline, and after the merchant's grace
    WRONG_ASSET = "wrong_asset"
    CANCELED = "canceled"  # the merchant had canceled the session
    RETURNED = "returned"  # was held, and the merchant has paid it back


@dataclass(frozen=True, slots=True)
class HeldCredit:
    """A credit that changes nothing, and why.

    Attributes:
        history: which history of the network it is of; with the credit's key, its identity.
        reason: any outcome but `applied` and `returned`.
        session_id: the session that it named, if it named one; `reference` is that session's.
    """

    credit: Credit
    history: int
    reason: Outcome
    session_id: UUID | None = None
    reference: str | None = None

    @property
    def key(self) -> tuple[int, int, int]:
        """Operation, change and history."""
        return (*self.credit.key, self.history)


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of a session's status, for the log of transitions."""

    before: SessionStatus
    after: SessionStatus
    cause: Cause
    credit: Credit | None


@dataclass(frozen=True, slots=True)
class Settlement:
    """What is to be written for one session.

    `session` is the session afterwards; `completed_by` the credit that made it paid, if one did.
    """

    session: CheckoutSession
    outcomes: tuple[tuple[Credit, Outcome], ...]
    transitions: tuple[Transition, ...]
    completed_by: Credit | None

    @property
    def had_money(self) -> bool:
        """Whether credits had been applied to it before these."""
        return self.session.received > sum(
            credit.amount for credit, outcome in self.outcomes if outcome is Outcome.APPLIED
        )


def judge(session: CheckoutSession, credit: Credit) -> Outcome:
    """Say what one credit does to a session as it stands."""
    if credit.asset != session.asset:
        return Outcome.WRONG_ASSET
    if session.status is SessionStatus.CANCELED:
        return Outcome.CANCELED
    if session.status is SessionStatus.PAID:
        return Outcome.DUPLICATE
    if credit.closed_at > session.terms.accept_until:
        return Outcome.LATE
    return Outcome.APPLIED


def decide(
    session: CheckoutSession,
    credits_: Iterable[Credit],
    judged_by: Callable[[CheckoutSession, Credit], Outcome] = judge,
) -> Settlement:
    """Fold credits that name this session into it, in ledger order.

    Args:
        session: the session as locked, with all that was applied before in `received`.
        credits_: credits not seen before, in any order.
        judged_by: says what each does to the session as it stands then.
    """
    outcomes: list[tuple[Credit, Outcome]] = []
    transitions: list[Transition] = []
    completed_by: Credit | None = None
    for credit in sorted(credits_, key=lambda credit: credit.key):
        outcome = judged_by(session, credit)
        outcomes.append((credit, outcome))
        if outcome is not Outcome.APPLIED:
            continue
        received = session.received + credit.amount
        enough = received >= session.terms.least_amount
        cause = Cause.CREDITED_IN_FULL if enough else Cause.CREDITED_IN_PART
        after = TRANSITIONS[session.status][cause]
        if after is not session.status:
            transitions.append(Transition(session.status, after, cause, credit))
        if after is SessionStatus.PAID:
            completed_by = credit
        paid_at = credit.closed_at if after is SessionStatus.PAID else None
        session = replace(session, received=received, status=after, paid_at=paid_at)
    return Settlement(session, tuple(outcomes), tuple(transitions), completed_by)


def apply_by_word(session: CheckoutSession, credit: Credit) -> Settlement:
    """Apply a held credit to a session because the merchant says so.

    Which session the payer named, and when the credit closed, is for the merchant to judge: an
    expired session takes it, too. A session that is paid or canceled does not.

    Raises:
        InvalidInput: naming what stands in the way.
    """
    if credit.account != session.account:
        raise InvalidInput("session", f"is on {session.account}; the credit came to another")
    if credit.asset != session.asset:
        raise InvalidInput("session", f"asks for {session.asset}; the credit is {credit.asset}")
    if not TRANSITIONS[session.status]:
        raise InvalidInput(
            "session", f"is {session.status}; open another one, or refund the credit"
        )
    return decide(session, [credit], lambda _session, _credit: Outcome.APPLIED)


def prove(session: CheckoutSession, credits_: Iterable[Credit], applied: int) -> Settlement:
    """Take credits as the proof that a paid session lacks.

    They are judged as if it were open, with `applied` stroops proven before. It stays paid,
    whatever is found; what is missing then is an invariant broken, and an alarm.
    """
    found = decide(replace(session, status=SessionStatus.PENDING, received=applied), credits_)
    paid_at = found.session.paid_at or session.paid_at
    still_paid = replace(found.session, status=SessionStatus.PAID, paid_at=paid_at)
    return replace(found, session=still_paid, transitions=())


def in_ledger_order(settlement: Settlement, later: Iterable[Credit]) -> Settlement:
    """Say which credit completed a session where later ones had been applied before.

    A stream can skip a credit that is read only after later ones were applied. What completed the
    session, and when, is the ledger's order to say, not that of reading: else money that reached
    its amount after the deadline would be called in time.

    Args:
        settlement: of a session that its credits completed.
        later: the credits applied before that lie behind `completed_by` in the ledger.
    """
    behind = sorted(later, key=lambda credit: credit.key)
    reached = settlement.session.received - sum(credit.amount for credit in behind)
    for credit in behind:
        if reached >= settlement.session.terms.least_amount:
            break
        reached += credit.amount
        session = replace(settlement.session, paid_at=credit.closed_at)
        settlement = replace(settlement, session=session, completed_by=credit)
    return settlement


@dataclass(frozen=True, slots=True)
class BatchSettlement:
    """What is to be written for a whole batch: one settlement per session, and what named none."""

    settlements: tuple[Settlement, ...]
    unmatched: tuple[Credit, ...]

    @property
    def outcomes(self) -> list[tuple[Credit, Outcome, UUID | None]]:
        """Every credit with what it did and the session that it named."""
        held = [(credit, Outcome.UNMATCHED, None) for credit in self.unmatched]
        return held + [
            (credit, outcome, settlement.session.id)
            for settlement in self.settlements
            for credit, outcome in settlement.outcomes
        ]

    def held(self, history: int) -> list[HeldCredit]:
        """Every credit that changes nothing, in the history of the network that they are of."""
        unmatched = [HeldCredit(credit, history, Outcome.UNMATCHED) for credit in self.unmatched]
        return unmatched + [
            HeldCredit(credit, history, outcome, settled.session.id, settled.session.reference)
            for settled in self.settlements
            for credit, outcome in settled.outcomes
            if outcome is not Outcome.APPLIED
        ]

    @property
    def changed(self) -> list[Settlement]:
        """The sessions that are not as they were: those to which a credit was applied."""
        return [
            settlement
            for settlement in self.settlements
            if any(outcome is Outcome.APPLIED for _, outcome in settlement.outcomes)
        ]

    @property
    def completed(self) -> dict[UUID, Credit]:
        """By session: the credit that completed it, if there was money on it before."""
        return {
            settlement.session.id: settlement.completed_by
            for settlement in self.settlements
            if settlement.completed_by is not None and settlement.had_money
        }

    def in_ledger_order(self, later: Mapping[UUID, Iterable[Credit]]) -> "BatchSettlement":
        """Say of each of these sessions which credit completed it; see `in_ledger_order`."""
        settlements = tuple(
            in_ledger_order(settlement, later.get(settlement.session.id, ()))
            for settlement in self.settlements
        )
        return replace(self, settlements=settlements)


def decide_batch(
    sessions: Iterable[CheckoutSession],
    credits_: Iterable[Credit],
    unproven: Mapping[UUID, int] = MappingProxyType({}),
) -> BatchSettlement:
    """Give each credit to the session that it names, and decide once for each session.

    A payer names a session by its muxed address or by its memo; where there is a muxed id, the
    memo is not looked at. Money that came before the session was opened is not for it, whatever
    its memo: a merchant may use a reference again, and a backfill may read the past.

    A wallet that offers no id memo sends the id's digits as text. That names the session too, if
    its terms say so and no session has that very text.

    Args:
        sessions: the locked sessions that the credits may name.
        credits_: credits not seen before.
        unproven: paid sessions whose applied credits do not reach what pays them, each with the
            stroops that are applied. These credits may be the rest of the proof.
    """
    sessions = list(sessions)
    by_muxed_id = {(session.account, session.muxed_id): session for session in sessions}
    by_memo = {(session.account, session.memo): session for session in sessions}
    named: dict[UUID, list[Credit]] = defaultdict(list)
    unmatched: list[Credit] = []
    for credit in credits_:
        session = _named_by(credit, by_muxed_id, by_memo)
        if session is None or credit.operation_id <= session.opened_position:
            unmatched.append(credit)
        else:
            named[session.id].append(credit)
    settlements = tuple(
        prove(session, named[session.id], unproven[session.id])
        if session.id in unproven
        else decide(session, named[session.id])
        for session in sessions
        if session.id in named
    )
    return BatchSettlement(settlements, tuple(unmatched))


def _named_by(
    credit: Credit,
    by_muxed_id: Mapping[tuple[str, int], CheckoutSession],
    by_memo: Mapping[tuple[str, Memo], CheckoutSession],
) -> CheckoutSession | None:
    if credit.muxed_id is not None:
        return by_muxed_id.get((credit.account, credit.muxed_id))
    session = by_memo.get((credit.account, credit.memo))
    if session is None and (as_id := credit.memo.text_as_id) is not None:
        session = by_memo.get((credit.account, as_id))
        return session if session and session.terms.text_for_id else None
    return session

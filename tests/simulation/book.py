"""What was done in one run, by those who did it: the oracle's only source beside the ledger."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from paywatch.domain.checkout import CheckoutSession
from paywatch.service.checkout import NewMerchant
from simulation.trace import Trace

CreditKey = tuple[int, int]
"""Operation and change."""


class Diary:
    """The trace, the faults that were met, and what was found wrong.

    Args:
        trace: takes every line.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.met: Counter[str] = Counter()  # faults, by kind
        self.wrong: list[str] = []
        self.alarmed = asyncio.Event()

    def note(self, who: str, what: str) -> None:
        """Write that something happened."""
        self.trace.note(who, what)

    def fault(self, who: str, kind: str, more: str = "") -> None:
        """Write that a fault was met."""
        self.met[kind] += 1
        self.trace.note(who, f"fault {kind} {more}".rstrip())

    def alarm(self, what: str) -> None:
        """Write that something does not hold that must always hold: the run is over."""
        self.wrong.append(what)
        self.trace.note("ALARM", what)
        self.alarmed.set()


@dataclass(frozen=True, slots=True)
class Registered:
    """A merchant as it was registered."""

    name: str
    merchant: NewMerchant

    @property
    def account(self) -> str:
        """The address that is watched for it."""
        return self.merchant.account


@dataclass
class Book:
    """The facts of one run.

    Attributes:
        merchants: in the order of their registration.
        sessions: as they were opened, with their terms.
        opened_at: the latest ledger when each was there.
        applied: held credits that a word applied, and to which session.
        returned: held credits that a word called returned, and by which transaction.
        announced: hashes of transactions on the ledger, or on their way there, that were
            announced: they may be settled before what closed earlier.
        planted: operations that no reader can read, by account.
        hidden: ledgers that some Horizon showed late.
        gone: endpoints' paths that answered 410 once.
    """

    merchants: list[Registered] = field(default_factory=list)
    sessions: dict[UUID, CheckoutSession] = field(default_factory=dict)
    opened_at: dict[UUID, int] = field(default_factory=dict)
    applied: dict[CreditKey, UUID] = field(default_factory=dict)
    returned: dict[CreditKey, str] = field(default_factory=dict)
    announced: set[str] = field(default_factory=set)
    planted: dict[int, str] = field(default_factory=dict)
    hidden: set[int] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)

    def merchant_of(self, account: str) -> Registered | None:
        """Say whose account it is."""
        return next((one for one in self.merchants if one.account == account), None)

    def open(self, at: datetime) -> list[CheckoutSession]:
        """Give the sessions whose deadline lies ahead, the oldest first."""
        return [session for session in self.sessions.values() if session.expires_at > at]

"""Search: what Horizon holds of sessions whose credits are missing, brought to the one settling."""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog

from paywatch.domain.checkout import CheckoutSession
from paywatch.domain.ledger import Batch, Credit, LedgerRecord, Memo, Position
from paywatch.errors import HorizonError
from paywatch.service.backfill import PageSource
from paywatch.service.settle import Order, Settler

log = structlog.stdlib.get_logger(__name__)

LONGEST: Final = 500  # pages of an account that one search reads
REMEMBERED: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Searched:
    """How many credits were found and settled, and the accounts that could not be searched."""

    settled: int
    failed: frozenset[str]

    def asked_about(self, sessions: Iterable[CheckoutSession]) -> list[UUID]:
        """The sessions that Horizon could be asked about."""
        return [session.id for session in sessions if session.account not in self.failed]


@dataclass
class Memory:
    """Up to where sessions were searched for in vain: the next search goes on from there.

    A session that nothing proves would else cost all pages since its opening in every run. After
    REMEMBERED it is searched for from the beginning again: Horizon may fill in behind.
    """

    _searched: dict[tuple[int, UUID], tuple[Position, datetime]] = field(default_factory=dict)

    def begin(self, history: int, session: CheckoutSession, now: datetime) -> Position:
        """Where to begin to search for a session."""
        upto, since = self._searched.get((history, session.id), (Position(0), now))
        return max(session.opened_position, upto if now - since < REMEMBERED else Position(0))

    def note(
        self, history: int, wanted: Iterable[CheckoutSession], upto: Position, now: datetime
    ) -> None:
        """All up to there has been searched."""
        self._searched = {k: v for k, v in self._searched.items() if now - v[1] < REMEMBERED}
        for session in wanted:
            _, since = self._searched.get((history, session.id), (upto, now))
            self._searched[history, session.id] = (upto, since)


@dataclass(frozen=True, slots=True)
class Search:
    """Searches the accounts of sessions.

    Attributes:
        memory: of earlier searches.
        by: who searches, for the logs and the quarantine's key.
        at_work: called after each look at Horizon.
    """

    settler: Settler
    source: PageSource
    memory: Memory
    by: str
    at_work: Callable[[], None]

    async def bring(self, missing: Iterable[CheckoutSession]) -> Searched:
        """Settle what Horizon has of these sessions' accounts, from their opening on."""
        wanted: dict[str, list[CheckoutSession]] = defaultdict(list)
        for session in missing:
            wanted[session.account].append(session)
        settled, failed = 0, set()
        for account, of_account in sorted(wanted.items()):
            try:
                async for outcomes in self._bring_account(account, of_account):
                    settled += outcomes
            except HorizonError as error:
                log.warning("recovery_could_not_look", account=account, error=str(error))
                failed.add(account)
            self.at_work()
        return Searched(settled, frozenset(failed))

    async def _bring_account(
        self, account: str, wanted: Sequence[CheckoutSession]
    ) -> AsyncIterator[int]:
        """Page through an account from the first session's opening to the last one's deadline.

        What an earlier search has read is left out. What names none of these sessions is the
        stream's business, and so is what cannot be read.
        Yields how much of each page was settled.

        Raises:
            HorizonError: Horizon cannot be read, or has more pages than one run may read.
        """
        history = await self.settler.history()
        now = self.settler.clock()
        position = min(self.memory.begin(history, session, now) for session in wanted)
        deadline = max(session.terms.accept_until for session in wanted)
        for _ in range(LONGEST):
            batch = await self.source.page(account, position)
            self.at_work()
            evidence = replace(batch, records=tuple(_naming(wanted, batch.records)))
            if evidence.records:
                yield await self._settle(account, evidence, history)
            position = batch.upto
            if batch.read:  # what an empty page claims, another instance may know better
                self.memory.note(history, wanted, position, now)
            if batch.read == 0 or (batch.closed_at is not None and batch.closed_at > deadline):
                return
        raise HorizonError(
            f"{account}: {LONGEST} pages searched, up to ledger {position.ledger}; the next run"
            " goes on from there"
        )

    async def _settle(self, account: str, evidence: Batch, history: int) -> int:
        order = Order(evidence, by=f"{self.by}:{account}", history=history)
        outcomes = (await self.settler.settle(order, self.at_work)).outcomes
        for credit, _, session_id in outcomes:
            log.warning(
                "repaired",
                repair="missed_credit",
                session_id=None if session_id is None else str(session_id),
                operation_id=str(credit.operation_id),
            )
        self.settler.metrics.recovered.labels(repair="missed_credit").inc(len(outcomes))
        return len(outcomes)


def _naming(
    wanted: Sequence[CheckoutSession], records: Sequence[LedgerRecord]
) -> list[LedgerRecord]:
    """The records with a credit that names one of these sessions, as settlement will find it."""
    names: set[int | Memo | None] = {session.muxed_id for session in wanted}
    names |= {session.memo for session in wanted}
    return [
        record for record in records if any(names & _named_by(credit) for credit in record.credits)
    ]


def _named_by(credit: Credit) -> set[int | Memo | None]:
    """What a credit may name a session by; the muxed id alone, where there is one."""
    if credit.muxed_id is not None:
        return {credit.muxed_id}
    return {credit.memo, credit.memo.text_as_id}

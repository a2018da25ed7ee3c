"""Processing: what becomes of sessions that wait for a transaction which a payer announced."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog

from paywatch.domain.announcement import Announcement, Trace, conclude, is_overdue
from paywatch.domain.checkout import Cause, CheckoutSession
from paywatch.errors import HorizonError
from paywatch.service.search import Search, Searched
from paywatch.service.trace import Tracer
from paywatch.store import announcements

log = structlog.stdlib.get_logger(__name__)

MOST_FAILURES: Final = (
    3  # look-ups that may fail before Horizon is left in peace until the next run
)

Ending = tuple[Announcement, Cause]
Waiting = Sequence[tuple[CheckoutSession, Announcement]]


@dataclass(frozen=True)
class Processing:
    """Looks after the sessions in `processing`.

    Attributes:
        search: reads the pages of an account, before one of its sessions is given up.
        patience: how long a transaction may stay unseen.
    """

    tracer: Tracer
    search: Search
    patience: timedelta

    async def look_after(self) -> tuple[Searched, dict[UUID, Cause]]:
        """Look every announced transaction up, and end the waiting for those that do not pay.

        Returns:
            What was settled, with the accounts of sessions that Horizon could not be asked about;
            and the sessions that are `pending` again, each with the reason.
        """
        waiting = await self.tracer.with_conn(announcements.find_processing, "REPEATABLE READ")
        traces, settled = await self._trace(waiting)
        endings = self._endings(waiting, traces)
        # A payer may announce wrongly and pay rightly: the pages of the account are read, once,
        # before a session is given up.
        overdue = [s for s, _ in waiting if s.id in endings and _is_given_up(endings[s.id])]
        searched = await self.search.bring(overdue)
        for session in overdue:
            if session.account in searched.failed:
                del endings[session.id]
        ended = await self.tracer.end(endings)
        for session_id, cause in sorted(ended.items()):
            log.warning("repaired", repair="processing", session_id=str(session_id), cause=cause)
        failed = {s.account for s, announced in waiting if announced.tx_hash not in traces}
        return Searched(settled + searched.settled, searched.failed | failed), ended

    def _endings(self, waiting: Waiting, traces: Mapping[str, Trace]) -> dict[UUID, Ending]:
        """Say whose waiting is to end, and why."""
        now, endings = self.tracer.clock(), {}
        for session, announced in waiting:
            if (trace := traces.get(announced.tx_hash)) is None:
                continue
            cause = conclude(announced, trace)
            if cause is None and is_overdue(announced, trace, now, self.patience):
                cause = Cause.UNTRACED
            if cause is not None:
                endings[session.id] = (announced, cause)
        return endings

    async def _trace(self, waiting: Waiting) -> tuple[dict[str, Trace], int]:
        """Look each transaction up once, whichever sessions wait for it, and settle it."""
        accounts = {announced.tx_hash: session.account for session, announced in waiting}
        if not waiting:
            return {}, 0
        watched = await self.tracer.watched()
        traces: dict[str, Trace] = {}
        settled = failures = 0
        for tx_hash, account in accounts.items():
            try:
                traces[tx_hash], done = await self.tracer.look_up(tx_hash, watched, account)
            except HorizonError as error:
                log.warning("recovery_could_not_look", tx_hash=tx_hash, error=str(error))
                failures += 1
            else:
                settled += len(done.outcomes)
            self.tracer.at_work()
            if failures == MOST_FAILURES:
                break
        return traces, settled


def _is_given_up(ending: Ending) -> bool:
    return ending[1] is Cause.UNTRACED

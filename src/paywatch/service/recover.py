"""Recover: find sessions that stand where they should not, and set them right.

Every repair is guarded by the state that it repairs, in the statement or under a row lock: a
session that is paid between recovery's look and its write stays paid.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from itertools import accumulate
from random import Random
from typing import Final, Protocol, TypeVar

import structlog
from sqlalchemy.engine.interfaces import IsolationLevel
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from paywatch.domain import events as domain_events
from paywatch.domain.checkout import TRANSITIONS, Cause, CheckoutSession, SessionStatus
from paywatch.domain.ledger import Credit
from paywatch.domain.settlement import HeldCredit, Settlement, Transition
from paywatch.service.backfill import PageSource
from paywatch.service.processing import Processing
from paywatch.service.search import Memory, Search, Searched
from paywatch.service.settle import Settler, paid_events
from paywatch.service.trace import Tracer, TraceSource
from paywatch.service.waiting import unless, wait_for
from paywatch.store import events, invariants, outbox, quarantine, recovery, sessions
from paywatch.store.invariants import Violation
from paywatch.store.retry import in_transaction
from paywatch.store.writes import send
from paywatch.telemetry import Metrics, Progress

log = structlog.stdlib.get_logger(__name__)
T = TypeVar("T")

BY: Final = "recover"
LONGEST_CHECK_S: Final = 600.0  # the invariants of a large database, by one statement each


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What one run repaired, and what it found broken and could not repair."""

    settled: int  # credits found on Horizon that had been missed
    returned: int  # sessions back from `processing` to `pending`
    proven: int  # paid sessions whose missing payment was found
    unproven: int  # paid sessions without enough credits, on Horizon neither: alarm
    marked: int  # sessions with enough credits, marked paid or told of now
    told: int  # held credits that nobody was told of, told now
    expired: int
    released: int  # deliveries freed from a dead dispatcher's lease
    buried: int  # deliveries to endpoints that are gone, given up
    unsearched: tuple[str, ...]  # accounts that Horizon could not be asked about
    violations: tuple[Violation, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing is left that needs a person."""
        return not (self.unproven or self.unsearched or self.violations)

    def document(self) -> dict[str, object]:
        """Describe the run as a JSON document."""
        return asdict(self) | {"healthy": self.healthy}


@dataclass(frozen=True, slots=True)
class Timing:
    """How often recovery works and how far back it looks, in seconds."""

    interval_s: float = 300.0
    expire_s: float = 5.0  # expiry follows the ledger's clock closely; it is one cheap statement
    processing_s: float = 300.0  # an announced transaction may stay unseen for so long
    window_s: float = 7 * 86_400.0  # what changed since then is checked; an audit checks all


class RecoverySource(PageSource, TraceSource, Protocol):
    """Reads an account's past operations, and looks transactions up."""


@dataclass(frozen=True)
class Recovery:
    """Repairs one database, looking at one Horizon.

    Attributes:
        at_work: called after each look at Horizon, and before each wait for a database that is
            away: neither is a loop that hangs.
    """

    engine: AsyncEngine
    settler: Settler
    source: RecoverySource
    clock: Callable[[], datetime]
    rng: Random
    metrics: Metrics
    timing: Timing = Timing()
    at_work: Callable[[], None] = lambda: None
    memory: Memory = field(default_factory=Memory)

    async def run(self, stop: asyncio.Event, progress: Progress) -> None:
        """Repair every `interval_s` and expire every `expire_s` until `stop` is set.

        A stop cuts a run off, wherever it is: what it had not committed, the next one does.
        """
        allowance_s = max(LONGEST_CHECK_S, 2 * self.timing.interval_s)
        progress.watch(BY, timedelta(seconds=allowance_s), self.clock())
        beating = replace(self, at_work=lambda: progress.beat(BY, self.clock()))
        due_at = self.clock()
        while not stop.is_set():
            if self.clock() >= due_at:
                await unless(stop, beating.run_once())
                due_at = self.clock() + timedelta(seconds=self.timing.interval_s)
            else:
                await unless(stop, beating.expire_overdue())
            progress.beat(BY, self.clock())
            await wait_for(stop, self.timing.expire_s)
        progress.forget(BY)

    async def run_once(self) -> RecoveryReport:
        """Do every repair once."""
        since = self.clock() - timedelta(seconds=self.timing.window_s)
        announced, returned = await self._repair_processing()
        searched, proven, unproven = await self._repair_unproven(since)
        report = RecoveryReport(
            settled=announced.settled + searched.settled,
            returned=returned,
            proven=proven,
            unproven=unproven,
            marked=await self._repair_unmarked(since),
            told=await self._repair_untold(since),
            expired=await self.expire_overdue(),
            released=await self._release_leases(),
            buried=await self._bury_undeliverable(),
            unsearched=tuple(sorted(announced.failed | searched.failed)),
            violations=await self.check_invariants(since),
        )
        (log.info if report.healthy else log.error)("recovery_run", **report.document())
        return report

    async def check_invariants(self, since: datetime | None) -> tuple[Violation, ...]:
        """Check what must always hold, of all that changed since a moment or of everything."""
        now = self.clock()

        async def check(conn: AsyncConnection) -> tuple[list[Violation], int]:
            return (
                await invariants.find_violations(conn, now, since),
                await quarantine.count(conn),
            )

        found, quarantined = await self._with_conn(check, "REPEATABLE READ")
        self.metrics.invariant_violations.set(len(found))
        self.metrics.invariants_checked_at.set(now.timestamp())
        self.metrics.quarantine.set(quarantined)
        for violation in found:
            log.error("invariant_violated", **asdict(violation))
        return tuple(found)

    async def expire_overdue(self) -> int:
        """Expire sessions whose account's stream was read past their deadline, and tell so."""
        now = self.clock()

        async def expire(conn: AsyncConnection) -> list[CheckoutSession]:
            overdue = await recovery.lock_overdue(conn)
            if not overdue:
                return []
            expired = [replace(s, status=_after(s, Cause.DEADLINE_PASSED)) for s in overdue]
            await recovery.expire(conn, [session.id for session in overdue], now)
            changes = [(s.id, s.status, "expired", Cause.DEADLINE_PASSED) for s in overdue]
            await recovery.log_transitions(conn, changes, now)
            told = map(domain_events.session_expired, expired)
            await send(conn, events.enqueue(told, now))
            return expired

        expired = await self._with_conn(expire)
        for session in expired:
            log.info("session_expired", session_id=str(session.id), received=session.received)
        self._count("expired", len(expired))
        if expired:
            self.settler.on_told()
        return len(expired)

    async def _repair_processing(self) -> tuple[Searched, int]:
        """Look for announced transactions; what comes to nothing goes back to `pending`."""
        tracer = Tracer(
            self.engine, self.settler, self.source, self.clock, self.rng, BY, self.at_work
        )
        patience = timedelta(seconds=self.timing.processing_s)
        searched, ended = await Processing(tracer, self._search, patience).look_after()
        self._count("processing", len(ended))
        return searched, len(ended)

    async def _repair_unproven(self, since: datetime) -> tuple[Searched, int, int]:
        """Look for the credits of paid sessions that have none; without a trace, alarm."""
        unproven = await self._with_conn(
            lambda conn: recovery.find_unproven(conn, since), "REPEATABLE READ"
        )
        search = await self._search.bring(unproven)
        ids = search.asked_about(unproven)
        if not ids:
            return search, 0, 0
        left = await self._with_conn(
            lambda conn: recovery.still_unproven(conn, ids), "REPEATABLE READ"
        )
        for session_id in sorted(set(ids) - left):
            log.warning("repaired", repair="missing_payment", session_id=str(session_id))
        for session_id in sorted(left):
            log.error("paid_without_payment", session_id=str(session_id))
        self._count("missing_payment", len(ids) - len(left))
        return search, len(ids) - len(left), len(left)

    async def _repair_unmarked(self, since: datetime) -> int:
        """Mark sessions paid that have enough credits, and tell of those that nobody was told."""
        now = self.clock()

        async def mark(conn: AsyncConnection) -> list[CheckoutSession]:
            unmarked = await recovery.lock_unmarked(conn, since)
            if not unmarked:
                return []
            applied = await recovery.applied_credits(conn, [s.id for s in unmarked])
            marked = [_marked(session, applied[session.id]) for session in unmarked]
            await send(conn, sessions.write_settled(marked, BY, now))
            await send(conn, events.enqueue(paid_events(marked), now))
            return unmarked

        marked = await self._with_conn(mark)
        for session in marked:
            log.warning("repaired", repair="unmarked_paid", session_id=str(session.id))
        self._count("unmarked_paid", len(marked))
        if marked:
            self.settler.on_told()
        return len(marked)

    async def _repair_untold(self, since: datetime) -> int:
        """Tell of held credits that nobody was told of."""
        now = self.clock()

        async def tell(conn: AsyncConnection) -> list[HeldCredit]:
            untold = await recovery.find_untold(conn, since)
            if untold:
                told = map(domain_events.payment_unapplied, untold)
                await send(conn, events.enqueue(told, now))
            return untold

        untold = await self._with_conn(tell)
        for held in untold:
            log.warning("repaired", repair="untold_credit", operation_id=str(held.key[0]))
        self._count("untold_credit", len(untold))
        if untold:
            self.settler.on_told()
        return len(untold)

    async def _release_leases(self) -> int:
        now = self.clock()
        freed = await self._with_conn(
            lambda conn: outbox.release_dead_leases(conn, now), "READ COMMITTED"
        )
        for event_id, _ in freed:
            log.warning("repaired", repair="lease", event_id=str(event_id))
        self._count("lease", len(freed))
        return len(freed)

    async def _bury_undeliverable(self) -> int:
        """Give up what was enqueued in the moment when its endpoint was disabled."""
        now = self.clock()
        buried = await self._with_conn(lambda conn: outbox.bury(conn, now), "READ COMMITTED")
        for event_id, _ in buried:
            log.warning("repaired", repair="undeliverable", event_id=str(event_id))
        self._count("undeliverable", len(buried))
        return len(buried)

    @property
    def _search(self) -> Search:
        return Search(self.settler, self.source, self.memory, BY, self.at_work)

    async def _with_conn(
        self,
        work: Callable[[AsyncConnection], Awaitable[T]],
        isolation_level: IsolationLevel = "SERIALIZABLE",
    ) -> T:
        engine = self.engine.execution_options(isolation_level=isolation_level)

        return await in_transaction(engine, work, rng=self.rng, on_retry=lambda _: self.at_work())

    def _count(self, repair: str, number: int) -> None:
        self.metrics.recovered.labels(repair=repair).inc(number)


def _after(session: CheckoutSession, cause: Cause) -> SessionStatus:
    return TRANSITIONS[session.status][cause]


def _marked(session: CheckoutSession, applied: Sequence[Credit]) -> Settlement:
    """The session as its applied credits make it: paid by the one that reached its amount."""
    totals = list(accumulate(credit.amount for credit in applied))
    completed_by = applied[bisect_left(totals, session.terms.least_amount)]
    paid_at = completed_by.closed_at
    if session.status is SessionStatus.PAID:
        paid = replace(session, received=totals[-1], paid_at=paid_at)
        return Settlement(paid, (), (), completed_by)
    cause = Cause.CREDITED_IN_FULL
    transition = Transition(session.status, _after(session, cause), cause, completed_by)
    paid = replace(session, status=transition.after, received=totals[-1], paid_at=paid_at)
    return Settlement(paid, (), (transition,), completed_by)

"""Audit: read the recent ledgers again, and compare them with the credits, one for one.

Nothing else looks behind a cursor: a ledger that Horizon ingested late, or an instance that lagged
behind a balancer, would take a payment with it. What is missing is settled as ever; what we hold
and the ledger does not show is told to an operator, and never repaired.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import ceil
from random import Random
from typing import Final, Protocol, TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from paywatch.domain.audit import Comparison, compare
from paywatch.domain.ledger import Batch, LedgerRecord, Position
from paywatch.errors import HorizonError, HorizonUnavailable, NotFound
from paywatch.service.audit_report import AuditReport
from paywatch.service.backfill import BEHIND, PageSource
from paywatch.service.settle import Order, Settled, Settler
from paywatch.service.waiting import unless, wait_for
from paywatch.store import audit as audit_store
from paywatch.store.audit import Watch
from paywatch.store.retry import in_transaction
from paywatch.telemetry import Metrics, Progress

log = structlog.stdlib.get_logger(__name__)
T = TypeVar("T")

BY: Final = "audit"
NETWORK: Final = "network"  # the reading of everybody's payments, for all accounts at once
LEDGER_S: Final = 4.0  # ledgers take 4 to 6 s: more of them are read than the window has
# Behind a balancer an empty page may come from another instance than the tip that it claims.
SURE_AFTER: Final = timedelta(minutes=5)
LONGEST_PAGE: Final = timedelta(minutes=30)  # with its waits for the budget of requests


class AuditSource(PageSource, Protocol):
    """Reads the past of an account, or of everybody at once."""

    async def tip(self) -> Position:
        """Give the position after all that is on the ledger; raises HorizonError."""
        ...

    async def network_page(self, watched: Container[str], after: Position) -> Batch:
        """Read at most 200 of everybody's operations; what credits none of `watched` is left out.

        Raises HorizonError.
        """
        ...


@dataclass(frozen=True, slots=True)
class Reading:
    """What is read in one go: a span of one account's payments, or of everybody's.

    Attributes:
        since: the accounts compared, and where the watching of each began.
        account: whose payments; None for everybody's.
        after: exclusive.
        upto: inclusive; what lies beyond the cursor is the live stream's business.
    """

    since: Mapping[str, Position]
    account: str | None
    after: Position
    upto: Position

    @property
    def label(self) -> str:
        """What it is called in logs and in the report."""
        return self.account or NETWORK


@dataclass(frozen=True, slots=True)
class Timing:
    """How often an audit is made, and how much of the ledger it reads again, in seconds."""

    interval_s: float = 1800.0
    window_s: float = 3600.0


@dataclass(frozen=True)
class Auditor:
    """Compares one database with one Horizon.

    Attributes:
        at_work: called after each page, and before each wait for a database that is away.
    """

    engine: AsyncEngine
    settler: Settler
    source: AuditSource
    clock: Callable[[], datetime]
    rng: Random
    metrics: Metrics
    timing: Timing = Timing()
    at_work: Callable[[], None] = lambda: None

    async def run(self, stop: asyncio.Event, progress: Progress) -> None:
        """Audit the recent ledgers every `interval_s` until `stop` is set, which cuts it off."""
        beating = replace(self, at_work=lambda: progress.beat(BY, self.clock()))
        self._completed()  # so that one that never is, is missed
        while not stop.is_set():
            progress.watch(BY, LONGEST_PAGE, self.clock())
            try:
                await unless(stop, beating.run_once())
            except HorizonError as error:
                log.warning("audit_waits", error=str(error))
            progress.forget(BY)
            await wait_for(stop, self.timing.interval_s)

    async def run_once(self) -> AuditReport:
        """Audit what was closed within the window.

        Raises:
            HorizonError: not even its tip could be read.
        """
        upto = await self.source.tip()
        ledgers = ceil(self.timing.window_s / LEDGER_S)
        after = Position.after_ledger(max(0, upto.ledger - ledgers))
        report = await self.audit(await self.readings(after, upto))
        self.metrics.audit_mismatches.set(report.mismatches)
        if not report.unaudited:
            self._completed()
        counts = report.document() | {"findings": len(report.findings)}
        (log.info if report.healthy else log.error)("audit_run", **counts)
        return report

    async def readings(
        self, after: Position, upto: Position, accounts: Collection[str] = ()
    ) -> list[Reading]:
        """Plan what to read of a span: all accounts, or these, each as far as its cursor is.

        Raises:
            NotFound: one of these is not watched.
        """
        watches = await self._ask(audit_store.read_watches)
        if unknown := set(accounts) - {watch.account for watch in watches}:
            raise NotFound(f"{min(unknown)} is not watched: no credit of it is kept")
        chosen = [w for w in watches if not accounts or w.account in accounts]
        alone = [[w] for w in chosen if accounts or not w.by_network]
        together = [w for w in chosen if not accounts and w.by_network]
        return [
            reading
            for group in (*alone, together)
            if group and (reading := _reading(group, after, upto, alone=group is not together))
        ]

    async def audit(self, readings: Iterable[Reading], *, settle: bool = True) -> AuditReport:
        """Compare, one reading after the other; one that fails does not hold up the others.

        Args:
            readings: what to read.
            settle: whether to settle what is missing.
        """
        report = AuditReport()
        for reading in readings:
            report = replace(report, accounts=report.accounts + len(reading.since))
            position, history = reading.after, await self.settler.history()
            try:
                while position < reading.upto:
                    batch, found = await self._page(reading, position)
                    settled = (
                        await self._settle(reading, batch, found, history) if settle else Settled()
                    )
                    report = report.with_page(batch.read, found, settled)
                    position = batch.upto
            except HorizonError as error:
                log.warning("audit_could_not_look", of=reading.label, error=str(error))
                why = dict(report.unaudited) | {reading.label: str(error)}
                report = replace(report, unaudited=why)
        return report

    async def _page(self, reading: Reading, after: Position) -> tuple[Batch, Comparison]:
        """Read and compare a page; one that accuses us is read again, and must say so twice.

        Raises:
            HorizonError: it could not be read.
        """
        batch, found = await self._read_and_compare(reading, after)
        if found.mismatches:
            accused = {finding.place for finding in found.mismatches}
            batch, found = await self._read_and_compare(reading, after)
            proven = tuple(f for f in found.mismatches if f.place in accused)
            found = replace(found, mismatches=proven)
        for finding in found.mismatches:
            log.error(
                "audit_mismatch",
                kind=finding.kind,
                account=finding.account,
                operation_id=str(finding.operation_id),
                change_index=finding.change_index,
                problem=finding.problem,
            )
        return batch, found

    async def _read_and_compare(
        self, reading: Reading, after: Position
    ) -> tuple[Batch, Comparison]:
        batch = _within(reading, await self._read(reading, after))
        self.at_work()
        operations = [record.operation_id for record in batch.records]
        span = (batch.after, batch.upto)
        held = await self._ask(
            lambda conn: audit_store.read_held(conn, reading.account, span, operations)
        )
        if batch.unfunded and held:
            raise HorizonUnavailable(BEHIND, f"it knows nothing of {reading.label}, and we do")
        if batch.read == 0:
            held = [
                c for c in held if batch.closed_at and c.closed_at <= batch.closed_at - SURE_AFTER
            ]
        found = compare(batch.records, held, reading.since)
        if found.missing:
            lacking = [record.operation_id for record in found.missing]
            found = found.without(
                await self._ask(
                    lambda conn: audit_store.read_quarantined(conn, reading.account, lacking)
                )
            )
        return batch, found

    async def _read(self, reading: Reading, after: Position) -> Batch:
        if reading.account is None:
            return await self.source.network_page(reading.since, after)
        return await self.source.page(reading.account, after)

    async def _settle(
        self, reading: Reading, batch: Batch, found: Comparison, history: int
    ) -> Settled:
        """Settle what is missing; what another audit or a backfill was faster with is not ours."""
        if not found.missing:
            return Settled()
        evidence = replace(batch, records=found.missing, read=len(found.missing))
        order = Order(evidence, by=f"{BY}:{reading.label}", history=history)
        settled = await self.settler.settle(order, self.at_work)
        if settled.outcomes:
            log.warning(
                "repaired",
                repair="audit",
                by=order.by,
                credits=[
                    {
                        "operation_id": str(credit.operation_id),
                        "change_index": credit.change_index,
                        "session_id": None if session_id is None else str(session_id),
                    }
                    for credit, _, session_id in settled.outcomes
                ],
            )
        self.metrics.recovered.labels(repair="audit").inc(len(settled.outcomes))
        return settled

    async def _ask(self, question: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        engine = self.engine.execution_options(isolation_level="READ COMMITTED")
        return await in_transaction(
            engine, question, rng=self.rng, on_retry=lambda _: self.at_work()
        )

    def _completed(self) -> None:
        self.metrics.audited_at.set(self.clock().timestamp())


def _reading(
    group: Sequence[Watch], after: Position, upto: Position, *, alone: bool
) -> Reading | None:
    """One reading for accounts that one stream reads for; None if there is nothing to compare."""
    since = {watch.account: watch.start_position for watch in group}
    begin = max(after, min(since.values()))
    end = min(upto, *(watch.read_upto for watch in group))
    return Reading(since, group[0].account if alone else None, begin, end) if begin < end else None


def _within(reading: Reading, batch: Batch) -> Batch:
    """Cut a page off at the end of the reading.

    Raises:
        HorizonUnavailable: it is the last one, and ends before: what follows, it does not have yet.
    """
    if batch.unfunded:  # there is nothing to show
        return replace(batch, upto=reading.upto)
    if batch.upto >= reading.upto:
        records: Iterable[LedgerRecord] = batch.records
        within = tuple(r for r in records if r.operation_id <= reading.upto)
        return replace(batch, records=within, upto=reading.upto)
    if batch.read == 0:
        end = f"ledger {batch.upto.ledger}, and ledger {reading.upto.ledger} is to be compared"
        raise HorizonUnavailable(BEHIND, f"it shows nothing of {reading.label} after {end}")
    return batch

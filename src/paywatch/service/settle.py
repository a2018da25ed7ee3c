"""Settle: the one way by which credits become payments, whoever read them.

Live stream, backfill and recovery all call `Settler.settle`. One SERIALIZABLE transaction moves
the cursor, locks the sessions, decides, and writes credits, payments, sessions, events and
deliveries. Whatever fails, either all of it happened or nothing did.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from random import Random
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from paywatch.domain import events as domain_events
from paywatch.domain.events import Event
from paywatch.domain.ledger import Batch, Credit, LedgerRecord, format_stroops
from paywatch.domain.settlement import BatchSettlement, Outcome, Settlement, decide_batch
from paywatch.errors import CursorMoved, NetworkReset
from paywatch.service.lulls import Lulls
from paywatch.store import credits as credit_store
from paywatch.store import cursors, events, histories, quarantine, sessions
from paywatch.store.cursors import Cursor
from paywatch.store.quarantine import Quarantined
from paywatch.store.retry import in_transaction, is_data_error, outcome_unknown, persistently
from paywatch.store.writes import Write, in_turn
from paywatch.telemetry import Metrics

log = structlog.stdlib.get_logger(__name__)

MOST_UNMATCHED: Final = 10


@dataclass(frozen=True, slots=True)
class Settled:
    """What one batch came to; told to logs and metrics only after the commit."""

    outcomes: tuple[tuple[Credit, Outcome, UUID | None], ...] = ()
    told: tuple[Event, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()

    def __add__(self, other: "Settled") -> "Settled":
        """Join the results of two parts of a batch."""
        return Settled(
            self.outcomes + other.outcomes,
            self.told + other.told,
            self.quarantined + other.quarantined,
        )


@dataclass(frozen=True, slots=True)
class Order:
    """One batch to settle.

    Attributes:
        batch: records with credits or problems, in ledger order, and the span that they cover.
        by: the stream or service that read them, for the logs and the quarantine's key.
        claim: the cursor to move with it; recovery moves none.
        history: for an order without a claim, the history as `Settler.history` gave it before the
            batch was read: what was read of one may not be written as another's. A claim needs
            none, for a reset raises its epoch.
    """

    batch: Batch
    by: str
    claim: Cursor | None = None
    history: int | None = None

    @property
    def is_live(self) -> bool:
        """Whether a live stream brought it."""
        return self.claim is not None and self.claim.end_position is None


@dataclass(frozen=True)
class Settler:
    """Settles batches on one database.

    Attributes:
        engine: whose transactions are SERIALIZABLE.
        clock: the wall clock; it dates rows and judges nothing.
        on_told: called after a commit that enqueued events, to wake the dispatcher.
        lulls: told when there is something to compute.
    """

    engine: AsyncEngine
    metrics: Metrics
    clock: Callable[[], datetime]
    rng: Random
    on_told: Callable[[], None] = lambda: None
    lulls: Lulls = field(default_factory=Lulls)

    async def settle(
        self,
        order: Order,
        at_work: Callable[[], None] = lambda: None,
        stop: asyncio.Event | None = None,
    ) -> Settled:
        """Settle a batch, however often the database has to be asked.

        Transient errors are tried again without end. A record that the database refuses is found
        by bisection and put into quarantine in the same transaction; the others are settled.

        Args:
            order: the batch.
            at_work: called before each wait for a database that is away.
            stop: when it is set, a database that is away is waited for no longer.

        Raises:
            CursorMoved: another instance moved the cursor; nothing was written.
            NetworkReset: another history has begun since the batch was read; nothing was written.
            DatabaseAway: `stop` is set. If COMMIT was not answered it may all be written.
        """
        if order.batch.says_nothing:
            return Settled()
        attempt = _Attempt(self, order)

        def retry(reason: str) -> None:
            self.metrics.settlement_retries.labels(reason=reason).inc()
            at_work()

        settled = await persistently(attempt.run, rng=self.rng, on_retry=retry, stop=stop)
        self._report(order, settled)
        return settled

    async def history(self) -> int:
        """Say which history it is: ask before reading a batch that is settled without a claim."""
        return (await in_transaction(self.engine, histories.read, rng=self.rng)).number

    def _report(self, order: Order, settled: Settled) -> None:
        now = self.clock()
        if order.batch.read:
            self.metrics.batch_size.observe(order.batch.read)
        self.metrics.payments.inc(len(_applied_hashes(settled)))
        self.metrics.quarantined.inc(len(settled.quarantined))
        for outcome, count in Counter(outcome for _, outcome, _ in settled.outcomes).items():
            self.metrics.credits.labels(outcome=outcome).inc(count)
        if order.is_live:  # what a backfill finds is old by intent
            for credit, _, _ in settled.outcomes:
                latency = (now - credit.closed_at).total_seconds()
                self.metrics.detection_latency.observe(max(0.0, latency))
        _warn_of_held(order.by, settled)
        if settled.outcomes:
            _log_settled(order, settled)
        for record in settled.quarantined:
            log.error(
                "record_quarantined",
                operation_id=str(record.operation_id),
                by=order.by,
                reason=record.reason,
            )
        if settled.told:
            self.on_told()


class _Attempt:
    """The tries at one order: what an earlier one left unknown or found out."""

    def __init__(self, settler: Settler, order: Order) -> None:
        self._settler = settler
        self._order = order
        self._maybe_committed = False
        self._bisect = False
        self._all_is_computed: Callable[[], None] = lambda: None

    async def run(self) -> Settled:
        try:
            with self._settler.metrics.settlement_duration.time():
                return await self._settle_and_commit()
        except DBAPIError as error:
            self._maybe_committed |= outcome_unknown(error)
            if self._bisect or not is_data_error(error):
                raise
            self._bisect = True
        return await self.run()

    async def _settle_and_commit(self) -> Settled:
        now = self._settler.clock()
        with self._settler.lulls.computing() as self._all_is_computed:
            async with self._settler.engine.begin() as conn:
                if not await self._move_cursor(conn, now):
                    return Settled()
                await self._require_history(conn)
                return await self._settle(conn, self._order.batch.records, now)

    async def _move_cursor(self, conn: AsyncConnection, now: datetime) -> bool:
        """Compare and set; False if an earlier try whose COMMIT was not answered did it all."""
        claim, batch = self._order.claim, self._order.batch
        if claim is None or await cursors.advance(conn, claim.stream, claim.epoch, batch, now):
            return True
        found = await cursors.read(conn, claim.stream)
        ours = found and found.epoch == claim.epoch and found.position == batch.upto
        if self._maybe_committed and ours:
            return False
        raise CursorMoved(
            f"the cursor of {claim.stream} is not at {batch.after} of epoch {claim.epoch} any more:"
            f" found {found}"
        )

    async def _require_history(self, conn: AsyncConnection) -> None:
        wanted = self._order.history
        if wanted is not None and (await histories.read(conn)).number != wanted:
            raise NetworkReset(f"what was read belongs to history {wanted}, which is over")

    async def _settle(
        self, conn: AsyncConnection, records: Sequence[LedgerRecord], now: datetime
    ) -> Settled:
        unreadable = [_quarantined(r, r.problem) for r in records if r.problem is not None]
        readable = [r for r in records if r.problem is None]
        if self._bisect:
            settled = await self._write_what_can_be(conn, readable, now)
        else:
            settled = await self._write(conn, readable, now)
        settled += Settled(quarantined=tuple(unreadable))
        if settled.quarantined:
            new = await quarantine.insert(conn, self._order.by, settled.quarantined, now)
            kept = tuple(r for r in settled.quarantined if r.operation_id in new)
            settled = replace(settled, quarantined=kept)
        return settled

    async def _write_what_can_be(
        self, conn: AsyncConnection, records: Sequence[LedgerRecord], now: datetime
    ) -> Settled:
        """Write all of these, or halves of them, down to the record that is refused."""
        try:
            async with conn.begin_nested():
                return await self._write(conn, records, now)
        except DBAPIError as error:
            if not is_data_error(error):
                raise
            if len(records) == 1:
                return Settled(quarantined=(_quarantined(records[0], str(error.orig)),))
        middle = len(records) // 2
        first = await self._write_what_can_be(conn, records[:middle], now)
        return first + await self._write_what_can_be(conn, records[middle:], now)

    async def _write(
        self, conn: AsyncConnection, records: Sequence[LedgerRecord], now: datetime
    ) -> Settled:
        """Lock, decide, write: a constant number of statements for any number of records."""
        credits_ = [credit for record in records for credit in record.credits]
        if not credits_:
            return Settled()
        locked = await sessions.lock_named(conn, credits_)
        history, known = await credit_store.known(conn, credits_)
        fresh = {credit.key: credit for credit in credits_ if credit.key not in known}
        if not fresh:
            return Settled()
        unproven = await sessions.unproven(conn, locked)
        decided = decide_batch(locked, fresh.values(), unproven)
        if decided.completed:
            later = await credit_store.applied_behind(conn, decided.completed)
            decided = decided.in_ledger_order(later)
        told: list[Event] = []
        await in_turn(conn, self._writes(decided, history, told, now))
        return Settled(tuple(decided.outcomes), tuple(told))

    def _writes(
        self, decided: BatchSettlement, history: int, told: list[Event], now: datetime
    ) -> Iterator[Write]:
        """Make ready what is to be written; the events are put into `told`, too."""
        yield credit_store.insert_credits(decided.outcomes, now)
        told += paid_events(decided.settlements)
        told += map(domain_events.payment_unapplied, decided.held(history))
        yield sessions.write_settled(decided.changed, self._order.by, now)
        last = events.enqueue(told, now)
        self._all_is_computed()
        yield last


def paid_events(settlements: Iterable[Settlement]) -> list[Event]:
    """Build the event of each session that its credits completed."""
    return [
        domain_events.session_paid(settlement.session, settlement.completed_by)
        for settlement in settlements
        if settlement.completed_by is not None
    ]


def _quarantined(record: LedgerRecord, reason: str) -> Quarantined:
    raw = json.dumps(record.source, ensure_ascii=True, separators=(",", ":")).encode()
    return Quarantined(record.operation_id, raw, reason)


def _applied_hashes(settled: Settled) -> set[str]:
    return {c.tx_hash for c, outcome, _ in settled.outcomes if outcome is Outcome.APPLIED}


def _log_settled(order: Order, settled: Settled) -> None:
    """Write one line for a batch, with every id in it: 200 lines cost more than their settling."""
    log.info(
        "batch_settled",
        by=order.by,
        upto=order.batch.upto,
        applied=[
            {
                "operation_id": str(credit.operation_id),
                "change_index": credit.change_index,
                "session_id": str(session_id),
            }
            for credit, outcome, session_id in settled.outcomes
            if outcome is Outcome.APPLIED
        ],
        told=[_told(event) for event in settled.told],
    )


def _told(event: Event) -> dict[str, str]:
    if event.credit is None:
        about = {"session_id": str(event.subject)}
    else:
        about = {"operation_id": str(event.credit[0])}
    return {"event_id": str(event.id), "type": event.type, **about}


def _warn_of_held(by: str, settled: Settled) -> None:
    """Warn of each held credit: it is somebody's money that does nothing yet.

    Anyone can send dust that names nothing, by the thousand: of what is unmatched a batch has
    MOST_UNMATCHED lines, and one that counts the others. They are all in the table of credits.
    """
    unmatched = [told for told in settled.outcomes if told[1] is Outcome.UNMATCHED]
    named = [told for told in settled.outcomes if told[2] and told[1] is not Outcome.APPLIED]
    for credit, outcome, session_id in [*named, *unmatched[:MOST_UNMATCHED]]:
        _warn_of_credit(by, credit, outcome, session_id)
    if more := len(unmatched[MOST_UNMATCHED:]):
        log.warning("more_credits_held", outcome=Outcome.UNMATCHED, more=more, by=by)


def _warn_of_credit(by: str, credit: Credit, outcome: Outcome, session_id: UUID | None) -> None:
    log.warning(
        "credit_held",
        outcome=outcome,
        session_id=None if session_id is None else str(session_id),
        operation_id=str(credit.operation_id),
        change_index=credit.change_index,
        tx_hash=credit.tx_hash,
        payer=credit.payer,
        amount=format_stroops(credit.amount),
        asset=str(credit.asset),
        by=by,
    )

"""Dispatch: claim due deliveries, POST them with no transaction open, record what came of it.

    claim ──lease──▶ attempt ──answer──▶ judge ──verdict──▶ record
    (short tx)       (no tx)             (pure)             (short tx, fenced by the lease)

`run` keeps hundreds of attempts in flight on one loop; `run_once` does one round of the same.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random
from typing import Protocol
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from paywatch.domain.delivery import (
    Answer,
    Dead,
    Delivered,
    Failure,
    Gone,
    Retry,
    Verdict,
    judge,
)
from paywatch.errors import DatabaseAway, SealError
from paywatch.store import outbox
from paywatch.store.outbox import Attempt, Claimed, Room
from paywatch.store.retry import in_transaction, is_data_error
from paywatch.telemetry import Metrics, bound

log = structlog.stdlib.get_logger(__name__)


class Sender(Protocol):
    """Makes one bounded POST; trouble is an answer, never an exception."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """POST `body` once."""
        ...


class Vault(Protocol):
    """Opens the secrets of endpoints."""

    def open(self, sealed: bytes, endpoint_id: UUID) -> str:
        """The secret; raises SealError."""
        ...


class Sign(Protocol):
    """Makes the headers by which the merchant verifies an attempt."""

    def __call__(
        self, secrets: Sequence[str], event_id: str, sent_at: datetime, body: bytes, /
    ) -> Mapping[str, str]:
        """The headers."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one dispatcher.

    Args:
        in_flight: attempts at once.
        per_endpoint: attempts at once at one endpoint: what it can hold up if it hangs.
        lease: how long a claim lasts; an attempt ends well before (15 s).
        poll_s: how long an idle dispatcher sleeps if nobody wakes it.
    """

    in_flight: int = 512
    per_endpoint: int = 32
    lease: timedelta = timedelta(seconds=60)
    poll_s: float = 0.5


@dataclass(frozen=True, slots=True)
class Dispatched:
    """What came of one round, in deliveries."""

    delivered: int = 0
    retry: int = 0
    dead: int = 0
    gone: int = 0
    lost: int = 0  # the lease was lost, the attempt is recorded nowhere


@dataclass
class Dispatcher:
    """Delivers what the outbox holds; any number of them share the work.

    Attributes:
        clock: the wall clock.
        rng: spreads retries and makes lease tokens.
        beat: called after each round of the loop that got somewhere, and before each wait for a
            database that is away: that is no hanging loop.
    """

    engine: AsyncEngine
    sender: Sender
    vault: Vault
    sign: Sign
    metrics: Metrics
    clock: Callable[[], datetime]
    rng: Random
    limits: Limits = field(default_factory=Limits)
    beat: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        # Row locks and the token fence decide here; SERIALIZABLE would only add retries.
        self._engine = self.engine.execution_options(isolation_level="READ COMMITTED")
        self._in_flight = 0
        self._made: list[Attempt] = []
        self._recording = asyncio.Lock()
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """There may be something due: do not wait for the next poll."""
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until `stop` is set, then finish the attempts in flight.

        One that a database that is away cannot record then is made again after its lease.
        """
        async with asyncio.TaskGroup() as attempts:
            while not stop.is_set():
                self._wake.clear()
                for claimed in await self._claim(stop):
                    self._in_flight += 1
                    attempts.create_task(self._deliver(claimed, stop))
                self.beat()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), self.limits.poll_s)

    async def run_once(self) -> Dispatched:
        """Claim what is due, make all these attempts at once, record them."""
        claimed = await self._claim()
        made = await asyncio.gather(*(self._attempt(one) for one in claimed))
        return await self._record(made)

    async def _claim(self, stop: asyncio.Event | None = None) -> list[Claimed]:
        room = Room(self.limits.in_flight - self._in_flight, self.limits.per_endpoint)
        if room.slots <= 0:
            return []

        async def lease(conn: AsyncConnection) -> list[Claimed]:
            # A fresh token each time: a claim whose COMMIT was not answered just runs out.
            token = UUID(int=self.rng.getrandbits(128), version=4)
            return await outbox.claim(conn, room, token, self.clock(), self.limits.lease)

        try:
            return await in_transaction(
                self._engine, lease, rng=self.rng, on_retry=lambda _: self.beat(), stop=stop
            )
        except DatabaseAway:
            return []

    async def _deliver(self, claimed: Claimed, stop: asyncio.Event) -> None:
        """Make the attempt and record it, together with all that ended meanwhile.

        While one transaction runs, attempts gather; whoever gets the lock next records them all.
        """
        try:
            attempt = await self._attempt(claimed)
            self._made.append(attempt)  # the list of now: it may have changed hands meanwhile
            async with self._recording:
                made, self._made = self._made, []
                await self._record(made, stop)
        except DatabaseAway:
            log.warning("attempts_not_recorded", attempts=len(made))
        finally:
            self._in_flight -= 1
            self.wake()

    async def _attempt(self, claimed: Claimed) -> Attempt:
        started_at = self.clock()
        with bound(
            session_id=claimed.session_id,
            operation_id=claimed.operation_id,
            event_id=claimed.event_id,
        ):
            answer = await self._post(claimed, started_at)
        verdict = judge(answer, claimed.attempt, self.clock(), self.rng)
        return Attempt(claimed, started_at, answer, verdict)

    async def _post(self, claimed: Claimed, sent_at: datetime) -> Answer:
        try:
            secret = self.vault.open(claimed.sealed_secret, claimed.endpoint_id)
        except SealError as error:
            return Answer(failure=Failure.SEALED, detail=str(error))
        headers = self.sign([secret], str(claimed.event_id), sent_at, claimed.payload)
        return await self.sender.post(claimed.url, headers, claimed.payload)

    async def _record(
        self, made: Sequence[Attempt], stop: asyncio.Event | None = None
    ) -> Dispatched:
        if not made:
            return Dispatched()

        async def write(conn: AsyncConnection) -> set[outbox.LeaseKey]:
            return await outbox.record(conn, made, self.clock())

        try:
            recorded = await in_transaction(self._engine, write, rng=self.rng, stop=stop)
        except DBAPIError as error:
            if not is_data_error(error):
                raise
            # Whatever a merchant's server answered, the verdict must be kept.
            log.exception("answers_not_recordable", attempts=len(made))
            made = [_without_answer(attempt) for attempt in made]
            recorded = await in_transaction(self._engine, write, rng=self.rng, stop=stop)
        return self._report(made, recorded)

    def _report(self, made: Sequence[Attempt], recorded: set[outbox.LeaseKey]) -> Dispatched:
        counts: Counter[str] = Counter()
        for attempt in made:
            result = _result(attempt.verdict) if attempt.claimed.lease in recorded else "lost"
            counts[result] += 1
            _log_attempt(attempt, result)
            if result != "lost":
                self.metrics.attempts.labels(result=result).inc()
                self.metrics.attempt_duration.observe(attempt.answer.duration_s)
        return Dispatched(**counts)


def _result(verdict: Verdict) -> str:
    """The verdict as the metrics' label."""
    match verdict:
        case Delivered():
            return "delivered"
        case Retry():
            return "retry"
        case Dead():
            return "dead"
        case Gone():
            return "gone"


def _without_answer(attempt: Attempt) -> Attempt:
    """The attempt less the words of the merchant's server."""
    return replace(attempt, answer=replace(attempt.answer, detail="", excerpt=b""))


def _log_attempt(attempt: Attempt, result: str) -> None:
    claimed, answer, verdict = attempt.claimed, attempt.answer, attempt.verdict
    tell = {"delivered": log.info, "retry": log.warning, "lost": log.warning}.get(result, log.error)
    tell(
        f"delivery_{result}",
        event_id=str(claimed.event_id),
        session_id=claimed.session_id and str(claimed.session_id),
        operation_id=claimed.operation_id and str(claimed.operation_id),
        endpoint_id=str(claimed.endpoint_id),
        attempt=claimed.attempt,
        status=answer.status,
        error=answer.error,
        duration_s=round(answer.duration_s, 3),
        next_at=verdict.at.isoformat() if isinstance(verdict, Retry) else None,
    )

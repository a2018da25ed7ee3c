"""Attempts: what came of them, recorded many at a time, logged and counted."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from random import Random
from typing import Any, Final

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from paywatch.domain.delivery import Dead, Delivered, Gone, Retry, Verdict
from paywatch.store import outbox
from paywatch.store.outbox import Attempt
from paywatch.store.retry import in_transaction, is_data_error
from paywatch.telemetry import Metrics

log = structlog.stdlib.get_logger(__name__)

TOLD_TOGETHER: Final = 100  # deliveries, in one line: longer ones are cut by what reads logs


@dataclass(frozen=True, slots=True)
class Dispatched:
    """What came of attempts, in deliveries."""

    delivered: int = 0
    retry: int = 0
    dead: int = 0
    gone: int = 0
    lost: int = 0  # the lease was lost, the attempt is recorded nowhere


@dataclass(frozen=True)
class Recorder:
    """Writes what came of attempts, in one transaction for all that it is given.

    Attributes:
        engine: READ COMMITTED; row locks and the fence of each lease decide.
        clock: the wall clock.
        rng: spreads retries.
    """

    engine: AsyncEngine
    metrics: Metrics
    clock: Callable[[], datetime]
    rng: Random

    async def record(
        self, made: Sequence[Attempt], stop: asyncio.Event | None = None
    ) -> Dispatched:
        """Record attempts, tell the log and count them.

        Raises:
            DatabaseAway: `stop` is set, and the database did not take them.
        """
        if not made:
            return Dispatched()

        async def write(conn: AsyncConnection) -> set[outbox.LeaseKey]:
            return await outbox.record(conn, made, self.clock())

        try:
            recorded = await in_transaction(self.engine, write, rng=self.rng, stop=stop)
        except DBAPIError as error:
            if not is_data_error(error):
                raise
            # Whatever a merchant's server answered, the verdict must be kept.
            log.exception("answers_not_recordable", attempts=len(made))
            made = [_without_answer(attempt) for attempt in made]
            recorded = await in_transaction(self.engine, write, rng=self.rng, stop=stop)
        return self._report(made, recorded)

    def _report(self, made: Sequence[Attempt], recorded: set[outbox.LeaseKey]) -> Dispatched:
        counts: Counter[str] = Counter()
        delivered = []
        for attempt in made:
            result = _result(attempt.verdict) if attempt.claimed.lease in recorded else "lost"
            counts[result] += 1
            if result == "delivered":
                delivered.append(_told(attempt))
            else:
                _warn_of(attempt, result)
            if result != "lost":
                self.metrics.attempt_duration.observe(attempt.answer.duration_s)
        for result in counts.keys() - {"lost"}:
            self.metrics.attempts.labels(result=result).inc(counts[result])
        for start in range(0, len(delivered), TOLD_TOGETHER):
            log.info("delivered", deliveries=delivered[start : start + TOLD_TOGETHER])
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


def _warn_of(attempt: Attempt, result: str) -> None:
    """Write a line of its own for each that was not delivered."""
    verdict = attempt.verdict
    tell = log.warning if result in {"retry", "lost"} else log.error
    tell(
        f"delivery_{result}",
        **_told(attempt),
        error=attempt.answer.error,
        next_at=verdict.at.isoformat() if isinstance(verdict, Retry) else None,
    )


def _told(attempt: Attempt) -> dict[str, Any]:
    """An attempt in a log."""
    claimed, answer = attempt.claimed, attempt.answer
    about = {"session_id": claimed.session_id, "operation_id": claimed.operation_id}
    return {
        "event_id": str(claimed.event_id),
        **{name: str(id_) for name, id_ in about.items() if id_ is not None},
        "endpoint_id": str(claimed.endpoint_id),
        "attempt": claimed.attempt,
        "status": answer.status,
        "duration_s": round(answer.duration_s, 3),
    }

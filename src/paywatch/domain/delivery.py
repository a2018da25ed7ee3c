"""What one answer of a merchant's endpoint means, and when to try again.

Pure: the time and the randomness are arguments. The rules are Standard Webhooks 1.0.0:
only 2xx succeeds, 410 means "never again", four statuses may ask for a later retry by
`Retry-After`, and the schedule of ten attempts spans 75.6 hours.
"""

import email.utils
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Protocol, TypeAlias

# How long after the attempt before it each attempt is made; the first is made at once.
SCHEDULE = (
    timedelta(0),
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
MAX_ATTEMPTS = len(SCHEDULE)

# Endpoints that failed together must not come back together: each delay is within ±20 %.
JITTER = 0.2

# A receiver may slow us down, but not silence us: its wish is honoured up to this bound.
MAX_RETRY_AFTER = timedelta(hours=24)

_SLOW_DOWN = frozenset({429, 502, 503, 504})
_GONE = 410


class Rng(Protocol):
    """The one method of `random.Random` that is needed here."""

    def uniform(self, a: float, b: float, /) -> float:
        """A number between `a` and `b`."""
        ...


class Failure(StrEnum):
    """Why there was no complete answer."""

    REFUSED = "refused"  # the guard does not let us go there
    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"  # the whole deadline, body read included
    BROKEN = "broken"  # the connection or the protocol broke before the answer's end
    SEALED = "sealed"  # our own fault: the endpoint's secret does not open, nothing was sent


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back from one POST, within its limits.

    A `failure` may stand beside a `status`: the head of the answer came, its body did not.
    Such an answer is not a success, whatever its status.
    """

    status: int | None = None
    failure: Failure | None = None
    detail: str = ""
    retry_after: str | None = None  # the raw header: hostile until parsed
    excerpt: bytes = b""  # the first bytes of the body
    duration_s: float = 0.0

    @property
    def error(self) -> str | None:
        """The failure in words for the attempt log, or None."""
        return None if self.failure is None else f"{self.failure}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Delivered:
    """The endpoint has it."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again, not before `at`."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Dead:
    """The last attempt failed: a dead letter, visible until somebody resends it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Gone:
    """The endpoint said 410: disable it, its pending deliveries become dead letters."""

    reason: str


Verdict: TypeAlias = Delivered | Retry | Dead | Gone


def judge(answer: Answer, attempt: int, now: datetime, rng: Rng) -> Verdict:
    """Decide what becomes of a delivery after attempt number `attempt` (from 1)."""
    if answer.status == _GONE:
        return Gone("the endpoint answered 410 Gone")
    if answer.failure is None and answer.status is not None and 200 <= answer.status <= 299:
        return Delivered()
    at = next_attempt_at(attempt, now, rng, answer)
    if at is None:
        # An operator may have a dead letter sent again, beyond the schedule.
        of = f" of {MAX_ATTEMPTS}" if attempt <= MAX_ATTEMPTS else ""
        return Dead(f"attempt {attempt}{of} failed: {_why(answer)}")
    return Retry(at)


def next_attempt_at(attempt: int, now: datetime, rng: Rng, answer: Answer) -> datetime | None:
    """When to try again after attempt number `attempt` failed; None after the last one.

    `Retry-After` can only lengthen the delay of the schedule, never shorten it.
    """
    if attempt >= MAX_ATTEMPTS:
        return None
    delay = SCHEDULE[attempt] * rng.uniform(1 - JITTER, 1 + JITTER)
    if answer.status in _SLOW_DOWN and answer.retry_after is not None:
        delay = max(delay, min(parse_retry_after(answer.retry_after, now), MAX_RETRY_AFTER))
    return now + delay


def parse_retry_after(value: str, now: datetime) -> timedelta:
    """The delay that a `Retry-After` header asks for; zero for garbage and for the past.

    Both forms of RFC 9110 are read: seconds, and an HTTP date.
    """
    value = value.strip()
    if value.isascii() and value.isdecimal():
        # The bound comes before the number: `int` and `timedelta` both choke on huge ones.
        return timedelta(seconds=int(value)) if len(value) <= 9 else MAX_RETRY_AFTER
    try:
        at = email.utils.parsedate_to_datetime(value)
        # RFC 9110 dates are GMT; the parser leaves "-0000" naive.
        return max(timedelta(0), (at if at.tzinfo else at.replace(tzinfo=UTC)) - now)
    except (ValueError, TypeError, IndexError, OverflowError):
        return timedelta(0)


def _why(answer: Answer) -> str:
    return answer.error or f"status {answer.status}"

"""Any text as what a server's headers ask for: a wait within its bounds, whatever it says."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

from fuzz.target import Target
from paywatch.domain.delivery import (
    JITTER,
    MAX_ATTEMPTS,
    MAX_RETRY_AFTER,
    SCHEDULE,
    Answer,
    Dead,
    Delivered,
    Gone,
    Retry,
    judge,
    parse_retry_after,
)
from paywatch.horizon.budget import BURST, Budget
from paywatch.horizon.transport import read_retry_after

NOW: Final = datetime(2026, 11, 21, 12, tzinfo=UTC)
LONGEST: Final = max(*SCHEDULE) * (1 + JITTER) + MAX_RETRY_AFTER


def run(raw: bytes) -> None:
    """The first two bytes are the status, the third the attempt; the rest is the header."""
    status, attempt = 100 + int.from_bytes(raw[:2], "big") % 500, 1 + sum(raw[2:3]) % 12
    text = raw[3:].decode(errors="surrogateescape")
    assert parse_retry_after(text, NOW) >= timedelta(0)
    check_verdict(Answer(status, retry_after=text), attempt)
    _horizon(status, text)


def check_verdict(answer: Answer, attempt: int) -> None:
    """Judge an answer; the wait must be within the schedule's bounds, whatever it asks for."""
    match judge(answer, attempt, NOW, Random(attempt)):
        case Delivered():
            assert answer.failure is None
            assert answer.status is not None
            assert answer.status // 100 == 2
        case Gone():
            assert answer.status == 410
        case Dead(reason):
            assert attempt >= MAX_ATTEMPTS
            assert reason
        case Retry(at):
            assert attempt < MAX_ATTEMPTS
            assert SCHEDULE[attempt] * (1 - JITTER) <= at - NOW <= LONGEST


def _horizon(status: int, text: str) -> None:
    names = ("Retry-After", "X-RateLimit-Reset", "X-RateLimit-Limit", "X-RateLimit-Remaining")
    for name in names:
        wait_s = read_retry_after(status, {name: text}, NOW)
        assert wait_s is None or wait_s >= 0
        budget = Budget(clock=lambda: 0.0)
        budget.heed({name: text})
        assert 0 <= budget.left <= budget.size <= BURST + 1
        budget.refuse(wait_s)
        assert 0 <= budget.wait_s() <= 3600


_VALUES: Final = (
    "0", "7", "999999999", "9999999999", "-1", "1.5", "1e9", "\u00b2", " 3 ",
    "Fri, 20 Nov 2026 10:10:10 GMT", "Friday, 20-Nov-26 10:10:10 GMT", "Fri Nov 20 10:10:10 2026",
    "Fri, 31 Dec 9999 23:59:59 -1200", "Mon, 01 Jan 0001 00:00:00 +1400", "Fri, 20 Nov 2026 10:10",
    "20 Nov 2026 10:10:10 -0000", "Fri, 20 Nov 99999999999999999999 10:10:10 GMT",
)  # fmt: skip
_STATUSES: Final = (b"\x01\x49\x00", b"\x01\x93\x05", b"\x00\x64\x0a")  # 429, 503, 200
TARGET = Target(run, tuple(s + value.encode() for s in _STATUSES for value in _VALUES))

"""The breaker: when an instance is left alone, and who may try it again."""

import random
from dataclasses import dataclass

import pytest

from paywatch.horizon.breaker import (
    FAILURES,
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    Breaker,
    BreakerState,
)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(random.Random(1), clock)


def state(breaker: Breaker) -> str:
    return str(breaker.state)


def opened(breaker: Breaker) -> Breaker:
    for _ in range(FAILURES):
        breaker.failed()
    assert breaker.state is BreakerState.OPEN
    return breaker


def pause_s(breaker: Breaker, clock: Clock) -> float:
    """Wait until it is due, second by second."""
    began = clock.now
    while not breaker.is_due:
        clock.now += 0.125
    return clock.now - began


def test_it_opens_after_failures_in_a_row_only(breaker: Breaker) -> None:
    for _ in range(10):
        for _ in range(FAILURES - 1):
            breaker.failed()
        breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED
    opened(breaker)


def test_something_small_is_tried_when_the_pause_is_over_and_then_one_request_decides(
    breaker: Breaker, clock: Clock
) -> None:
    opened(breaker).tried()
    assert state(breaker) == "open", "not due yet"
    pause_s(breaker, clock)
    breaker.tried()
    assert state(breaker) == "half_open"
    breaker.failed()
    assert state(breaker) == "open", "one failure is enough now"
    pause_s(breaker, clock)
    breaker.tried()
    breaker.succeeded()
    assert state(breaker) == "closed"
    for _ in range(FAILURES - 1):
        breaker.failed()
    assert breaker.state is BreakerState.CLOSED


def test_pauses_grow_with_jitter_up_to_a_bound_and_begin_anew_after_a_success(
    breaker: Breaker, clock: Clock
) -> None:
    opened(breaker)
    pauses = []
    for _ in range(10):
        pauses.append(pause_s(breaker, clock))
        breaker.failed()
    bounds = [min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**n) for n in range(10)]
    for pause, bound in zip(pauses, bounds, strict=True):
        assert bound / 2 <= pause <= bound + 0.25
    assert len({round(p / b, 2) for p, b in zip(pauses, bounds, strict=True)}) > 5
    breaker.succeeded()
    assert pause_s(opened(breaker), clock) <= FIRST_PAUSE_S + 0.25


def test_requests_that_were_under_way_when_it_opened_do_not_make_the_pause_longer(
    breaker: Breaker, clock: Clock
) -> None:
    opened(breaker)
    for _ in range(50):
        breaker.failed()
    assert pause_s(breaker, clock) <= FIRST_PAUSE_S + 0.25

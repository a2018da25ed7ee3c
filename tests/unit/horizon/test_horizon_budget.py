"""The budget of requests: our own count, Horizon's word, and what open streams cost."""

import math
from dataclasses import dataclass
from fractions import Fraction

import pytest

from paywatch.horizon.budget import BURST, LONGEST_REFUSAL_S, REFUSED_S, Budget
from paywatch.sim.ratelimit import Quota, RateLimiter


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def spent(budget: Budget, requests: int) -> Budget:
    for _ in range(requests):
        budget.spend()
    return budget


def test_a_burst_can_be_spent_at_once_and_then_one_request_a_second(clock: Clock) -> None:
    budget = Budget(3600, clock)
    assert budget.left == budget.size == BURST + 1
    assert spent(budget, 200).left == 0
    assert budget.wait_s() == pytest.approx(1.0)
    clock.now += 5
    assert budget.left == 5
    clock.now += 7200
    assert budget.left == BURST + 1, "what nobody used is gone"


def test_our_count_lets_nothing_through_that_horizons_limiter_refuses(clock: Clock) -> None:
    budget, limiter = Budget(3600, clock), RateLimiter(Quota(3600, 100), clock)
    for _ in range(400):
        if budget.wait_s() == 0:
            budget.spend()
            assert not limiter.take("us").limited
        clock.now += 0.5


def test_an_open_stream_costs_720_requests_an_hour(clock: Clock) -> None:
    budget = spent(Budget(3600, clock), 101)
    with budget.streaming():
        clock.now += 10
        assert budget.left == 8, "of ten that came in, two looks"
    clock.now += 10
    assert budget.left == 18


def test_streams_that_use_up_what_comes_in_leave_nothing_to_wait_for(clock: Clock) -> None:
    budget = spent(Budget(3600, clock), 101)
    with budget.streaming(), budget.streaming(), budget.streaming():
        with budget.streaming(), budget.streaming():
            assert math.isinf(budget.wait_s())
        assert budget.wait_s() == pytest.approx(2.5)


def test_horizon_says_less_than_our_count_for_other_processes_ask_too(clock: Clock) -> None:
    budget = Budget(3600, clock)
    budget.heed({"X-RateLimit-Limit": "101", "X-RateLimit-Remaining": "40"})
    assert budget.left == 40
    budget.heed({"X-RateLimit-Remaining": "99"})
    assert budget.left == 40, "more it cannot say: the setting is a bound"
    budget.heed({"X-RateLimit-Limit": "20", "X-RateLimit-Remaining": "20"})
    assert (budget.left, budget.size) == (20, 20)


@pytest.mark.parametrize(
    "value", ["", " ", "-1", "1.5", "٣", "0x10", "1e9", "NaN", "9" * 400, "1_0", "ten", "²"]
)
def test_a_header_that_is_no_number_is_not_heeded(clock: Clock, value: str) -> None:
    budget = Budget(3600, clock)
    budget.heed({"X-RateLimit-Limit": value, "X-RateLimit-Remaining": value})
    assert (budget.left, budget.size) == (101, 101)
    budget.heed({"X-RateLimit-Limit": "0"})
    assert budget.size == 101, "a limit of none would stop us for ever"


@pytest.mark.parametrize(
    ("asked_s", "wait_s"),
    [(7.0, 7.0), (None, REFUSED_S), (1e9, LONGEST_REFUSAL_S), (0.0, 1.0)],
)
def test_a_refusal_is_waited_for(clock: Clock, asked_s: float | None, wait_s: float) -> None:
    budget = Budget(3600, clock)
    budget.refuse(asked_s)
    assert budget.left == 0
    assert budget.wait_s() == pytest.approx(wait_s)
    clock.now += wait_s + 1
    assert budget.wait_s() == 0
    assert budget.left > 0


def test_a_reserve_is_left_to_others(clock: Clock) -> None:
    budget = spent(Budget(3600, clock), 50)
    assert budget.wait_s(0.5) == pytest.approx(0.5)
    assert budget.wait_s() == 0
    clock.now += 1
    assert budget.wait_s(0.5) == 0


def test_the_smallest_bucket_still_serves_those_who_leave_a_reserve(clock: Clock) -> None:
    budget = Budget(3600, clock)
    budget.heed({"X-RateLimit-Limit": "1"})
    assert budget.wait_s(0.5) == 0


def test_a_rate_of_ones_own_is_counted(clock: Clock) -> None:
    budget = spent(Budget(60, clock), 101)
    assert budget.wait_s() == pytest.approx(float(Fraction(3600, 60)))

"""Work that can wait, waits: for the reserve, for a refusal to pass, but never without end."""

import asyncio
from contextlib import ExitStack
from typing import Any

import pytest

from paywatch.errors import HorizonUnavailable
from paywatch.horizon.budget import Budget
from paywatch.horizon.polite import LONGEST_WAIT_S, MOST_REFUSALS, PoliteTransport
from paywatch.horizon.transport import HorizonTransport, JsonResponse


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)
        self.now += seconds


class Answers(HorizonTransport):
    """Answers each request, or refuses it as long as `refusals` last."""

    def __init__(self, budget: Budget, refusals: int = 0, asks_s: float | None = 7.0) -> None:
        super().__init__(budget=budget)
        self.refusals = refusals
        self.asks_s = asks_s
        self.asked = 0

    async def get(self, url: str, *_: Any, **__: Any) -> JsonResponse:
        self.asked += 1
        self.budget.spend()
        if self.refusals:
            self.refusals -= 1
            self.budget.refuse(self.asks_s)
            raise HorizonUnavailable("status_429", "slow down", self.asks_s)
        return JsonResponse({}, {}, url)


async def test_it_leaves_half_of_the_budget_to_the_live_streams() -> None:
    time = Time()
    transport = Answers(Budget(3600, time))
    polite = PoliteTransport(transport, time.sleep)
    for _ in range(50):
        await polite.get("/")
    assert time.slept == []
    for _ in range(10):
        await polite.get("/")
    assert time.now == pytest.approx(9.5)
    assert transport.budget.left >= 50


async def test_two_that_wait_for_the_same_request_do_not_both_take_it() -> None:
    time = Time()
    transport = Answers(Budget(3600, time))
    polite = PoliteTransport(transport, time.sleep)
    await asyncio.gather(*(polite.get("/") for _ in range(60)))
    assert transport.budget.left >= 49


async def test_where_streams_use_up_everything_it_still_gets_on() -> None:
    time = Time()
    budget = Budget(3600, time)
    polite = PoliteTransport(Answers(budget), time.sleep)
    for _ in range(101):
        budget.spend()
    with ExitStack() as streams:
        for _ in range(5):
            streams.enter_context(budget.streaming())
        await polite.get("/")
    assert time.now == pytest.approx(LONGEST_WAIT_S)


async def test_a_refused_request_is_made_again_when_it_may_be() -> None:
    time = Time()
    transport = Answers(Budget(3600, time), refusals=2)
    await PoliteTransport(transport, time.sleep).get("/")
    assert transport.asked == 3
    assert time.now >= 2 * 7


async def test_a_horizon_that_refuses_everything_fails_the_work_in_the_end() -> None:
    time = Time()
    transport = Answers(Budget(3600, time), refusals=1000, asks_s=None)
    with pytest.raises(HorizonUnavailable, match="slow down"):
        await PoliteTransport(transport, time.sleep).get("/")
    assert transport.asked == MOST_REFUSALS + 1


async def test_another_failure_is_told_at_once() -> None:
    class Broken(Answers):
        async def get(self, *_: Any, **__: Any) -> JsonResponse:
            self.asked += 1
            raise HorizonUnavailable("status_503", "away")

    transport = Broken(Budget(3600, Time()))
    with pytest.raises(HorizonUnavailable, match="away"):
        await PoliteTransport(transport).get("/")
    assert transport.asked == 1

"""What the refusals of several instances come to, and which are asked in the first place."""

import random
from typing import Any

import pytest

from paywatch.errors import HistoryGap, HorizonUnavailable, NetworkReset, WrongNetwork
from paywatch.horizon.breaker import FAILURES
from paywatch.horizon.choice import Grade
from paywatch.horizon.instance import Instance
from paywatch.horizon.source import HorizonSource
from paywatch.horizon.turns import Turn

AWAY = HorizonUnavailable("timeout", "no answer")
BUSY = HorizonUnavailable("status_429", "slow down", 1800.0)


def instance(name: str, *, is_dead: bool = False) -> Instance:
    found = Instance(name, HorizonSource(f"http://{name}.test", "net"), random.Random(1), 20.0)
    for _ in range(FAILURES if is_dead else 0):
        found._note(AWAY)
    return found


def turn(*errors: Exception, dead: str = "") -> Turn:
    found = Turn(2)
    for name, error in zip("ab", errors, strict=False):
        found.note(instance(name, is_dead=name in dead), error)  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    ("errors", "dead", "kind"),
    [
        ([HistoryGap("x"), HistoryGap("y")], "", HistoryGap),
        ([NetworkReset("x"), NetworkReset("y")], "", NetworkReset),
        ([WrongNetwork("x"), WrongNetwork("y")], "", WrongNetwork),
        ([HistoryGap("x"), NetworkReset("y")], "", HistoryGap),
        ([HistoryGap("x"), AWAY], "", HorizonUnavailable),  # it may have them: ask again
        ([HistoryGap("x"), AWAY], "b", HistoryGap),  # it does not answer
        ([NetworkReset("x"), AWAY], "b", NetworkReset),
        ([WrongNetwork("x"), AWAY], "", HorizonUnavailable),
        ([AWAY, BUSY], "", HorizonUnavailable),
    ],
)
def test_what_all_that_answer_say_is_told_and_each_is_named(
    errors: list[Exception], dead: str, kind: type[Exception]
) -> None:
    verdict = turn(*errors, dead=dead).verdict()
    assert type(verdict) is kind
    assert str(verdict) == f"a: {errors[0]}; b: {errors[1]}"


def test_a_gap_ends_at_the_oldest_ledger_that_any_of_them_keeps() -> None:
    verdict: Any = turn(HistoryGap("x", 500), HistoryGap("y", 300)).verdict()
    assert verdict.elder == 300
    assert turn(HistoryGap("x"), NetworkReset("y")).verdict().elder is None  # type: ignore[attr-defined]


def test_the_shortest_wait_counts_for_one_that_is_back_is_enough() -> None:
    verdict: Any = turn(BUSY, AWAY).verdict()
    assert (verdict.reason, verdict.retry_after) == ("timeout", None)
    verdict = turn(BUSY, HorizonUnavailable("status_429", "", 7.0)).verdict()
    assert verdict.retry_after == 7.0


def test_one_horizon_alone_says_what_it_always_said() -> None:
    only = Turn(1)
    only.note(instance("a"), BUSY)
    assert only.verdict() is BUSY


@pytest.mark.parametrize(
    ("error", "grade", "asked"),
    [
        (AWAY, Grade.WELL, True),
        (AWAY, Grade.BEHIND, True),
        (AWAY, Grade.FAILING, False),
        (HistoryGap("x"), Grade.BEHIND, True),
        (HistoryGap("x"), Grade.FAILING, True),  # it may have what the others do not keep
        (NetworkReset("x"), Grade.WELL, True),
        (NetworkReset("x"), Grade.BEHIND, False),  # the history that has ended
        (AWAY, Grade.FOREIGN, False),
        (HistoryGap("x"), Grade.FOREIGN, False),
    ],
)
def test_who_is_asked_after_a_refusal(error: Exception, grade: Grade, *, asked: bool) -> None:
    assert turn(error).goes_on(grade, in_time=True) is asked
    assert not turn(error).goes_on(grade, in_time=False), "no reader waits for all time limits"
    assert Turn(2).goes_on(grade, in_time=True)

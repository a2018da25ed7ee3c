from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paywatch.domain.delivery import (
    MAX_ATTEMPTS,
    MAX_RETRY_AFTER,
    SCHEDULE,
    Answer,
    Dead,
    Delivered,
    Failure,
    Gone,
    Retry,
    judge,
    next_attempt_at,
    parse_retry_after,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Middle:
    """A source of randomness that always draws the middle."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def delay_after(attempt: int, answer: Answer) -> timedelta:
    at = next_attempt_at(attempt, NOW, Middle(), answer)
    assert at is not None
    return at - NOW


def test_lesson_8_the_schedule_is_ten_attempts_over_75_6_hours() -> None:
    assert MAX_ATTEMPTS == 10
    assert sum(SCHEDULE, timedelta()).total_seconds() / 3600 == pytest.approx(75.6, abs=0.05)


@pytest.mark.parametrize(
    ("attempt", "seconds"),
    [
        (1, 5),
        (2, 5 * 60),
        (3, 30 * 60),
        (4, 2 * 3600),
        (5, 5 * 3600),
        (6, 10 * 3600),
        (7, 14 * 3600),
        (8, 20 * 3600),
        (9, 24 * 3600),
    ],
)
def test_each_failed_attempt_has_its_delay(attempt: int, seconds: int) -> None:
    assert delay_after(attempt, Answer(status=500)) == timedelta(seconds=seconds)


@given(st.integers(1, MAX_ATTEMPTS - 1), st.randoms(use_true_random=False))
def test_delays_are_spread_by_a_fifth_and_no_more(attempt: int, rng: Random) -> None:
    at = next_attempt_at(attempt, NOW, rng, Answer(status=500))
    assert at is not None
    assert SCHEDULE[attempt] * 0.8 <= at - NOW <= SCHEDULE[attempt] * 1.2


def test_the_spread_is_drawn_from_the_given_randomness() -> None:
    class Lowest(Middle):
        def uniform(self, a: float, b: float) -> float:
            return min(a, b)

    class Highest(Middle):
        def uniform(self, a: float, b: float) -> float:
            return max(a, b)

    answer = Answer(status=500)
    assert next_attempt_at(1, NOW, Lowest(), answer) == NOW + timedelta(seconds=4)
    assert next_attempt_at(1, NOW, Highest(), answer) == NOW + timedelta(seconds=6)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_delivers(status: int) -> None:
    assert judge(Answer(status=status), 1, NOW, Middle()) == Delivered()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=199),
        Answer(status=300),
        Answer(status=301),
        Answer(status=302),
        Answer(status=304),
        Answer(status=307),
        Answer(status=400),
        Answer(status=401),
        Answer(status=404),
        Answer(status=409),
        Answer(status=429),
        Answer(status=500),
        Answer(status=503),
        *(Answer(failure=failure) for failure in Failure),
        Answer(status=200, failure=Failure.TIMEOUT),
        Answer(status=204, failure=Failure.BROKEN),
        Answer(),
    ],
    ids=str,
)
def test_anything_else_is_tried_again(answer: Answer) -> None:
    assert judge(answer, 1, NOW, Middle()) == Retry(NOW + timedelta(seconds=5))


def test_lesson_8_a_404_during_a_deployment_does_not_kill_the_event() -> None:
    """Lesson 8."""
    for attempt in range(1, MAX_ATTEMPTS):
        assert isinstance(judge(Answer(status=404), attempt, NOW, Middle()), Retry)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer(status=404), "status 404"),
        (Answer(failure=Failure.DNS, detail="no such name"), "dns: no such name"),
    ],
)
def test_after_the_last_attempt_it_is_a_dead_letter_that_says_why(answer: Answer, why: str) -> None:
    assert isinstance(judge(answer, MAX_ATTEMPTS - 1, NOW, Middle()), Retry)
    verdict = judge(answer, MAX_ATTEMPTS, NOW, Middle())
    assert verdict == Dead(f"attempt 10 of 10 failed: {why}")


def test_the_last_attempt_can_still_deliver() -> None:
    assert judge(Answer(status=200), MAX_ATTEMPTS, NOW, Middle()) == Delivered()


@pytest.mark.parametrize("attempt", [1, MAX_ATTEMPTS])
def test_410_means_that_the_endpoint_is_gone(attempt: int) -> None:
    assert isinstance(judge(Answer(status=410), attempt, NOW, Middle()), Gone)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_retry_after_lengthens_the_delay(status: int) -> None:
    answer = Answer(status=status, retry_after="120")
    assert delay_after(1, answer) == timedelta(seconds=120)


@pytest.mark.parametrize("status", [200, 301, 400, 404, 500])
def test_retry_after_counts_for_four_statuses_only(status: int) -> None:
    answer = Answer(status=status, retry_after="120")
    assert delay_after(1, answer) == timedelta(seconds=5)


@pytest.mark.parametrize("value", ["0", "1", "299", format_datetime(NOW, usegmt=True)])
def test_retry_after_never_shortens_the_delay(value: str) -> None:
    assert delay_after(2, Answer(status=503, retry_after=value)) == timedelta(minutes=5)


@pytest.mark.parametrize(
    "value", ["86401", "999999999", "9" * 5000, "Fri, 31 Dec 9999 23:59:59 GMT"]
)
def test_retry_after_is_bounded(value: str) -> None:
    assert delay_after(1, Answer(status=503, retry_after=value)) == MAX_RETRY_AFTER


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 120 ", 120),
        ("Sun, 01 Mar 2026 12:02:00 GMT", 120),
        ("Sunday, 01-Mar-26 12:02:00 GMT", 120),
        ("Sun Mar  1 12:02:00 2026", 120),
        ("Sun, 01 Mar 2026 12:02:00 -0000", 120),
        ("Sun, 01 Mar 2026 13:02:00 +0100", 120),
        ("Sun, 01 Mar 2026 11:59:00 GMT", 0),
        ("", 0),
        ("soon", 0),
        ("-5", 0),
        ("1.5", 0),
        ("1e3", 0),
        ("٣", 0),
        ("²", 0),
        ("Sun, 99 Mar 2026 12:02:00 GMT", 0),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0),
        ("\udcff", 0),
    ],
)
def test_both_forms_of_retry_after_are_read_and_garbage_is_not(value: str, seconds: int) -> None:
    assert parse_retry_after(value, NOW) == timedelta(seconds=seconds)


@given(
    st.text(max_size=200) | st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,12} [A-Z][a-z]{2} [0-9:+ -]*")
)
def test_no_retry_after_can_crash_or_go_out_of_bounds(value: str) -> None:
    at = next_attempt_at(1, NOW, Middle(), Answer(status=503, retry_after=value))
    assert at is not None
    assert timedelta(seconds=5) <= at - NOW <= MAX_RETRY_AFTER


def test_the_attempt_log_gets_the_failure_in_words() -> None:
    assert Answer(status=200).error is None
    assert Answer(failure=Failure.REFUSED, detail="use https").error == "refused: use https"

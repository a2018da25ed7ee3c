"""How long to wait before the next try."""

from random import Random

import pytest

from paywatch.store.retry import FIRST_WAIT_S, LONGEST_WAIT_S, wait_before


class Highest(Random):
    def uniform(self, a: float, b: float) -> float:
        assert a == 0, "full jitter: two that collided must not meet again"
        return b


@pytest.mark.parametrize(
    ("retry", "most"),
    [(1, 2 * FIRST_WAIT_S), (2, 4 * FIRST_WAIT_S), (3, 8 * FIRST_WAIT_S), (8, LONGEST_WAIT_S)],
)
def test_waits_double_up_to_the_longest(retry: int, most: float) -> None:
    assert wait_before(retry, Highest()) == most


@pytest.mark.parametrize("retry", [100, 10_000, 10**9])
def test_after_a_long_outage_the_wait_is_still_a_number(retry: int) -> None:
    assert wait_before(retry, Highest()) == LONGEST_WAIT_S

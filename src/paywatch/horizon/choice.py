"""Which of several instances to read from: a pure function of how each one is."""

from collections.abc import Sequence
from enum import IntEnum


class Grade(IntEnum):
    """How an instance is, the best first."""

    WELL = 0
    SPENT = 1  # the budget that we count is used up; it may answer all the same
    BEHIND = 2  # another one is further on
    REFUSING = 3  # it said 429, and for how long
    FAILING = 4  # its breaker is open
    FOREIGN = 5  # it serves another network


def choose(
    grades: Sequence[Grade], well_for_s: Sequence[float], current: int, return_s: float
) -> int:
    """Choose by index: the current one while none is better, in the operator's order else.

    An earlier one is returned to only when it has been well for `return_s`: one that comes and goes
    would take all streams with it each time.
    """
    best = min(grades)
    if grades[current] > best:
        return grades.index(best)
    for index in range(current):
        if grades[index] is best and well_for_s[index] >= return_s:
            return index
    return current

"""Which instance is read from: the first one that is well, and back to it, but not in haste."""

import pytest

from paywatch.horizon.choice import Grade, choose

WELL, SPENT, BEHIND, REFUSING, FAILING, FOREIGN = Grade
LONG, SHORT = 1000.0, 1.0


@pytest.mark.parametrize(
    ("grades", "current", "chosen"),
    [
        ([WELL], 0, 0),
        ([FOREIGN], 0, 0),
        ([WELL, WELL], 0, 0),
        ([SPENT, WELL], 0, 1),
        ([BEHIND, WELL], 0, 1),
        ([FAILING, WELL, WELL], 0, 1),
        ([FAILING, FOREIGN, WELL], 0, 2),
        ([BEHIND, SPENT], 0, 1),  # it may be asked all the same
        ([REFUSING, BEHIND], 0, 1),
        ([FAILING, REFUSING], 0, 1),
        ([FAILING, FAILING], 0, 0),  # none can: no reason to go anywhere
        ([FAILING, FAILING], 1, 1),
        ([SPENT, SPENT], 1, 1),
        ([WELL, WELL, FAILING], 2, 0),
    ],
)
def test_the_first_of_the_best_is_chosen_when_the_current_one_is_worse(
    grades: list[Grade], current: int, chosen: int
) -> None:
    assert choose(grades, [SHORT] * len(grades), current, 60) == chosen


@pytest.mark.parametrize(
    ("well_for_s", "chosen"),
    [([SHORT, LONG, LONG], 1), ([LONG, LONG, LONG], 0), ([SHORT, SHORT, LONG], 2)],
)
def test_a_preferred_one_is_returned_to_when_it_has_been_well_for_long(
    well_for_s: list[float], chosen: int
) -> None:
    assert choose([WELL] * 3, well_for_s, 2, 60) == chosen

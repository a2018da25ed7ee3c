"""Rounds by turns: what else the machine does falls upon all contestants alike."""

from collections.abc import Callable, Mapping


def by_turns(contestants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run each contestant once a round; gives its figure of each round, by name.

    Every other round goes the other way round, so that nobody always follows the same one.
    """
    figures: dict[str, list[float]] = {name: [] for name in contestants}
    order = list(contestants.items())
    for _ in range(rounds):
        for name, run in order:
            figures[name].append(run())
        order.reverse()
    return figures

"""The canary and a few other planted bugs, each time; `make planted` tries them all."""

import pytest

from planted.catalogue import ALL
from planted.catchers import try_bug

QUICK = ("canary", "cursor-before-credits", "one-credit-per-hash", "marked-before-the-post")
SEEDS = range(12)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", QUICK)
def test_a_planted_bug_is_caught(name: str) -> None:
    [bug] = [bug for bug in ALL if bug.name == name]
    verdict = try_bug(bug, SEEDS)
    assert verdict.caught, f"{name} went unnoticed by {verdict.seeds} seeds"
    assert "ended by itself" not in verdict.by, "no check has seen it, but a crash"

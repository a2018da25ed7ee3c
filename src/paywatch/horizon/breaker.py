"""A breaker: whether an instance is asked at all, after it has failed a few times in a row."""

import random
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Final

FAILURES: Final = 3  # in a row
FIRST_PAUSE_S: Final = 5.0
LONGEST_PAUSE_S: Final = 300.0


class BreakerState(StrEnum):
    """Whether requests may go through."""

    CLOSED = "closed"  # they may
    OPEN = "open"  # none is made
    HALF_OPEN = "half_open"  # they may, and the next one decides


class Breaker:
    """Opens after `FAILURES` in a row, for a time that doubles with each trial that fails.

    The pause is jittered, so that several processes do not come back to a weak instance at once.

    Args:
        rng: the jitter.
        clock: seconds that never go back.
    """

    def __init__(self, rng: random.Random, clock: Callable[[], float] = time.monotonic) -> None:
        self._rng = rng
        self._clock = clock
        self._failures = 0
        self._openings = 0
        self._open_until = 0.0
        self.state = BreakerState.CLOSED

    @property
    def is_due(self) -> bool:
        """Whether it is open and its pause is over: something small may try the instance."""
        return self.state is BreakerState.OPEN and self._clock() >= self._open_until

    def failed(self) -> None:
        """Count a failure; those of requests that were under way when it opened count nothing."""
        if self.state is BreakerState.OPEN and not self.is_due:
            return
        self._failures += 1
        if self.state is not BreakerState.CLOSED or self._failures >= FAILURES:
            self._open()

    def tried(self) -> None:
        """Something small has succeeded: let the next request decide."""
        if self.is_due:
            self.state = BreakerState.HALF_OPEN

    def succeeded(self) -> None:
        """Close it, and forget all failures."""
        self._failures = self._openings = 0
        self.state = BreakerState.CLOSED

    def _open(self) -> None:
        bound_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._openings, 32))
        self._openings += 1
        self._open_until = self._clock() + self._rng.uniform(bound_s / 2, bound_s)
        self.state = BreakerState.OPEN

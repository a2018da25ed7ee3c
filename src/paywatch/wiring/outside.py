"""Time and chance: what a process takes from the world besides Horizon and its database."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random, SystemRandom


def wall_clock() -> datetime:
    """Tell the time, aware and in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Outside:
    """The clocks and the dice of one process; a simulation brings its own.

    Attributes:
        clock: the wall clock, aware and in UTC.
        ticks: seconds that never go back.
        rng: the operating system's: no two processes may draw the same lease token.
        token_bytes: as unpredictable as a key.
    """

    clock: Callable[[], datetime] = wall_clock
    ticks: Callable[[], float] = time.monotonic
    rng: Random = field(default_factory=SystemRandom)
    token_bytes: Callable[[int], bytes] = secrets.token_bytes

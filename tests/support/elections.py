"""Elections as a test needs them: at once."""

from collections.abc import Callable
from datetime import datetime
from random import Random

from sqlalchemy.ext.asyncio import AsyncEngine

from paywatch.service.elect import Election, Timing
from paywatch.store.engine import create_lock_engine
from paywatch.telemetry import Progress

QUICK = Timing(round_s=0.01)


def election_on(
    engine: AsyncEngine,
    clock: Callable[[], datetime],
    progress: Progress,
    timing: Timing = QUICK,
) -> Election:
    """The elections of one process on a database."""
    return Election(create_lock_engine(engine), clock, Random(1), progress, timing)

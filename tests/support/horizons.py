"""Several Horizons as one, in tests."""

import random
import time
from collections.abc import Callable
from typing import Any

from paywatch.horizon.budget import Budget
from paywatch.horizon.continuity import ReadHistory, first_history
from paywatch.horizon.instance import Instance
from paywatch.horizon.pool import HorizonPool
from paywatch.horizon.source import HorizonSource
from paywatch.horizon.timing import Timing
from paywatch.horizon.transport import HorizonTransport


def pool_of(
    passphrase: str,
    *urls: str,
    timing: Timing,
    per_hour: int = 10_000_000,
    clock: Callable[[], float] = time.monotonic,
    read_history: ReadHistory = first_history,
    **options: Any,
) -> HorizonPool:
    """A pool of these addresses, named `1`, `2`, … in this order."""
    instances = []
    for number, url in enumerate(urls, 1):
        transport = HorizonTransport(timing, budget=Budget(per_hour, clock))
        source = HorizonSource(url, passphrase, transport, timing=timing, read_history=read_history)
        rng = random.Random(number)
        instances.append(Instance(str(number), source, rng, timing.first_event_s, clock))
    return HorizonPool(instances, timing, clock=clock, **options)

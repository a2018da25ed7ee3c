"""Horizon's rate limiter: the generic cell rate algorithm of the Go package `throttled`."""

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quota:
    """How many requests an hour an address may make, and how many at once beyond that."""

    per_hour: int = 3600
    burst: int = 100

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            ValueError: naming the field.
        """
        if self.per_hour < 1:
            raise ValueError("per_hour: must be at least 1; use no quota for no limit")
        if self.burst < 0:
            raise ValueError("burst: must not be negative")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a request is refused, and what the headers say; times in whole seconds."""

    limited: bool
    limit: int
    remaining: int
    reset_s: int
    retry_after_s: int | None

    def headers(self) -> dict[str, str]:
        """`X-RateLimit-*`, and `Retry-After` for a refused request."""
        found = {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset_s),
        }
        if self.retry_after_s is not None:
            found["Retry-After"] = str(self.retry_after_s)
        return found


class RateLimiter:
    """Counts one token for each request of an address.

    Args:
        quota: the limit.
        clock: seconds that never go back.
    """

    def __init__(self, quota: Quota, clock: Callable[[], float]) -> None:
        self._interval = 3600 / quota.per_hour
        self._limit = quota.burst + 1
        self._clock = clock
        self._arrival: dict[str, float] = {}

    def take(self, address: str) -> Verdict:
        """Take one token of an address, if it has one."""
        now, tolerance = self._clock(), self._interval * self._limit
        arrival = max(now, self._arrival.get(address, now))
        next_arrival = arrival + self._interval
        limited = now < next_arrival - tolerance
        if not limited:
            self._arrival[address] = arrival = next_arrival
        used = arrival - now
        return Verdict(
            limited=limited,
            limit=self._limit,
            remaining=max(0, int((tolerance - used) / self._interval)),
            reset_s=math.ceil(used),
            retry_after_s=math.ceil(next_arrival - tolerance - now) if limited else None,
        )

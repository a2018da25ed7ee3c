"""How many requests one Horizon still serves us: our own count, corrected by what it says.

Horizon allows an address so many requests an hour and a burst of 100 beyond, by the generic cell
rate algorithm: a bucket that fills evenly. Several processes may use up the same one, so what its
headers say goes before our count where it is less.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

BURST: Final = 100  # Horizon's own, whatever the hourly rate
STREAM_LOOKS_EVERY_S: Final = 5.0  # `sse-update-frequency`: each look of a stream costs a request
REFUSED_S: Final = 10.0  # after a 429 that does not say how long
LONGEST_REFUSAL_S: Final = 3600.0

_HOUR_S: Final = 3600


class Budget:
    """The requests that an instance has left for us.

    Args:
        per_hour: requests that it allows.
        clock: seconds that never go back.
    """

    def __init__(self, per_hour: int = 3600, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_hour / _HOUR_S
        self._clock = clock
        self._size = BURST + 1.0
        self._left = self._size
        self._counted_at = clock()
        self._streams = 0
        self._refused_until = self._counted_at

    @property
    def left(self) -> int:
        """Requests that may be made now; 0 while it refuses them."""
        now = self._count()
        return 0 if now < self._refused_until else int(self._left)

    @property
    def size(self) -> int:
        """The most that can be left."""
        return int(self._size)

    @property
    def is_refused(self) -> bool:
        """Whether a 429 asked to wait, and that time is not over."""
        return self._clock() < self._refused_until

    def spend(self) -> None:
        """Count a request that is made now, allowed or not."""
        self._count()
        self._left = max(0.0, self._left - 1)

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """Count what a stream costs while it is open."""
        self._count()
        self._streams += 1
        try:
            yield
        finally:
            self._count()
            self._streams -= 1

    def heed(self, headers: Mapping[str, str]) -> None:
        """Take the instance's word where it allows less than our count.

        More it cannot say: the operator's setting is a bound, and so is the bucket's size. What is
        no number is not heeded.
        """
        limit = _read_count(headers.get("X-RateLimit-Limit"))
        remaining = _read_count(headers.get("X-RateLimit-Remaining"))
        self._count()
        if limit:
            self._size = float(min(BURST + 1, limit))
        if remaining is not None:
            self._left = float(min(self._left, remaining))
        self._left = min(self._left, self._size)

    def refuse(self, retry_after_s: float | None) -> None:
        """Note a 429, and how many seconds it asks to wait."""
        now = self._count()
        asked_s = REFUSED_S if retry_after_s is None else retry_after_s
        self._left = 0.0
        self._refused_until = now + min(asked_s, LONGEST_REFUSAL_S)

    def wait_s(self, reserve: float = 0.0) -> float:
        """Seconds until a request may be made that leaves a share of the bucket to others.

        Infinite while the open streams alone use up what flows in.
        """
        now = self._count()
        refused_s = max(0.0, self._refused_until - now)
        lacking = min(self._size, reserve * self._size + 1) - self._left
        if lacking <= 0:
            return refused_s
        inflow = self._inflow
        return max(refused_s, lacking / inflow) if inflow > 0 else float("inf")

    @property
    def _inflow(self) -> float:
        """Requests a second, less what the open streams cost."""
        return self._per_s - self._streams / STREAM_LOOKS_EVERY_S

    def _count(self) -> float:
        """Bring the count up to now, and give the time."""
        now = self._clock()
        flowed = self._inflow * (now - self._counted_at)
        self._left = min(self._size, max(0.0, self._left + flowed))
        self._counted_at = now
        return now


def _read_count(text: str | None) -> int | None:
    """Read a header of a server that may send anything."""
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None

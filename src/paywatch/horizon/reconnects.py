"""What a reader does when Horizon cannot be read: say so, wait, begin anew."""

import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import structlog

from paywatch.errors import HorizonUnavailable
from paywatch.horizon.timing import Backoff, Timing
from paywatch.horizon.transport import NOT_FOUND

CLOSED: Final = "closed"  # Horizon said goodbye: after 200 records or its time limit

_log = structlog.get_logger()


class Reconnects:
    """Waits after each failure, longer each time that nothing was read in between."""

    def __init__(
        self,
        stream: str,
        timing: Timing,
        rng: random.Random,
        on_reconnect: Callable[[str], None],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._stream = stream
        self._timing = timing
        self._backoff = Backoff(timing, rng)
        self._on_reconnect = on_reconnect
        self._sleep = sleep
        self._has_read = False

    def succeeded(self) -> None:
        """Something was read: the next failure is the first."""
        self._has_read = True
        self._backoff.reset()

    def pauses(self, error: HorizonUnavailable) -> Iterator[float]:
        """Say why, and give the seconds to wait, in pieces of at most `beat_s`.

        None after an ordinary goodbye; but a Horizon that says goodbye without having said
        anything else is not asked again at once.
        """
        was_ordinary = error.reason == CLOSED and self._has_read
        self._has_read = False
        wait_s = 0.0 if was_ordinary else self._backoff.next_wait_s(error.retry_after)
        if error.reason == NOT_FOUND:
            # No stream for an account without history: its first payment is found by polling.
            wait_s = self._timing.reconcile_s
        log = _log.debug if error.reason in {CLOSED, NOT_FOUND} else _log.warning
        log(
            "horizon_reconnect",
            stream=self._stream,
            reason=error.reason,
            error=str(error),
            wait_s=round(wait_s, 3),
        )
        self._on_reconnect(error.reason)
        while wait_s > 0:
            yield min(wait_s, self._timing.beat_s)
            wait_s -= self._timing.beat_s

    async def sleep(self, pause_s: float) -> None:
        """Wait for one of `pauses`."""
        await self._sleep(pause_s)

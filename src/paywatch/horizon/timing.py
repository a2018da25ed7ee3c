"""Every duration of the source in one place, in seconds, so that tests need not wait."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long the source waits for what.

    Attributes:
        connect_s: to be connected.
        get_s: for a whole response, body read included; Horizon gives up after 55 s by itself.
        first_event_s: from the request of a stream to its first event.
        silence_s: between two events of a stream. Horizon has no heartbeat: silence up to its own
            time limit of 55 s is normal.
        reconcile_s: the longest time that a stream goes on unconfirmed by a page.
        poll_s: between two looks at the whole network, once its end was reached.
        overlap_s: how long an empty page must have been one, page after page, before the position
            moves; an instance that lags by more than that can hide a payment.
        root_age_s: how old a root document may be; an old tip is safe, it only claims less.
        backoff_base_s: the bound of the first wait after a failure; it doubles with each.
        backoff_cap_s: the bound that it stops doubling at.
        retry_after_cap_s: the longest wait that Horizon may ask for.
        look_s: between two looks at an instance that nobody reads from.
        behind_s: an instance whose latest ledger is so much older than another's is behind.
        return_s: a preferred instance must be well for so long to be returned to.
        beat_s: the longest time without a batch while waiting, be it an empty one.
    """

    connect_s: float = 10.0
    get_s: float = 30.0
    first_event_s: float = 20.0
    silence_s: float = 70.0
    reconcile_s: float = 15.0
    poll_s: float = 4.0
    overlap_s: float = 60.0
    root_age_s: float = 4.0
    backoff_base_s: float = 1.0
    backoff_cap_s: float = 60.0
    retry_after_cap_s: float = 3600.0
    look_s: float = 15.0
    behind_s: float = 60.0
    return_s: float = 60.0
    beat_s: float = 30.0


class Backoff:
    """Waits that grow with each failure, with full jitter, on top of what Horizon asks for."""

    def __init__(self, timing: Timing, rng: random.Random) -> None:
        self._timing = timing
        self._rng = rng
        self._failures = 0

    def next_wait_s(self, retry_after_s: float | None) -> float:
        """Count a failure and give the seconds to wait after it."""
        doublings = min(self._failures, 32)  # above, the bound is the cap on any setting
        bound_s = min(self._timing.backoff_cap_s, self._timing.backoff_base_s * 2**doublings)
        self._failures += 1
        asked_s = min(retry_after_s or 0.0, self._timing.retry_after_cap_s)
        return asked_s + self._rng.uniform(0, bound_s)

    def reset(self) -> None:
        """Begin anew after a success."""
        self._failures = 0

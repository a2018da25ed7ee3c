"""Heartbeats: whether every loop of the daemon still gets somewhere.

A loop beats after each round that got somewhere, never on a timer of its own, so that a loop
that hangs is seen although the event loop runs and the port answers.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(slots=True)
class _Heart:
    allowance: timedelta
    beat_at: datetime


class Progress:
    """The heartbeats of one daemon, by the loop's name (`listen:G…`, `dispatch`, …)."""

    def __init__(self) -> None:
        self._hearts: dict[str, _Heart] = {}

    def watch(self, name: str, allowance: timedelta, now: datetime) -> None:
        """Expect a beat at least once every `allowance` from now on."""
        self._hearts[name] = _Heart(allowance, now)

    def beat(self, name: str, now: datetime) -> None:
        """The loop got somewhere.

        Raises:
            KeyError: nobody watches a loop of that name.
        """
        self._hearts[name].beat_at = now

    def forget(self, name: str) -> None:
        """The loop ended on purpose."""
        self._hearts.pop(name, None)

    def stale(self, now: datetime) -> list[str]:
        """The loops whose last beat is longer ago than they are allowed, sorted by name."""
        return sorted(
            name for name, heart in self._hearts.items() if now - heart.beat_at > heart.allowance
        )

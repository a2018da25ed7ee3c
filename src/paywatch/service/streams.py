"""Streams: how each stream of this process is doing, and the way to begin one anew.

Its follower says what it does, the watchdog judges how that compares with Horizon's tip; what is
shown in metrics and health is made of both.
"""

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import structlog

log = structlog.stdlib.get_logger(__name__)

Task = asyncio.Future[None]


class Pace(StrEnum):
    """Our position in a stream, against the tip of the Horizon that it is read from."""

    LIVE = "live"  # at the tip, within a bound; however old that tip is
    BEHIND = "behind"  # far from it, and moving
    STALLED = "stalled"  # the tip moves on, and we do not


@dataclass
class Streams:
    """The streams that this process follows, by label.

    Attributes:
        letting_go_s: how long a following that is cut off may take to end; then it is left alone:
            the next one's epoch makes it harmless.
    """

    letting_go_s: float = 10.0
    _said: dict[str, str] = field(default_factory=dict, init=False)
    _stopped: dict[str, str] = field(default_factory=dict, init=False)
    _pace: dict[str, Pace] = field(default_factory=dict, init=False)
    _cuts: dict[str, Task] = field(default_factory=dict, init=False)
    _left: set[Task] = field(default_factory=set, init=False)

    @property
    def followed(self) -> frozenset[str]:
        """The streams that this process reads now; not those that it stands by for."""
        return frozenset(self._cuts)

    @property
    def shown(self) -> Mapping[str, str]:
        """The state of each stream, one of STREAM_STATES."""
        return {label: self._show(label) for label in self._said}

    @property
    def stopped(self) -> Mapping[str, str]:
        """The streams that may not go on without an operator's word, and why, with the remedy."""
        return self._stopped

    def said(self, label: str) -> str | None:
        """What the stream's follower said last."""
        return self._said.get(label)

    def say(self, label: str, state: str) -> str:
        """Take its follower's word; give what is to be shown."""
        self._said[label] = state
        if state not in {"stopped", "catching_up"}:  # which it says before it has read anything
            self._stopped.pop(label, None)
        return self._show(label)

    def forget(self, label: str) -> None:
        """This process follows the stream no more."""
        self._said.pop(label, None)
        self._stopped.pop(label, None)

    def stop(self, label: str, why: str) -> None:
        """Note why a stream may not go on, until it has."""
        self._stopped[label] = why

    def judge(self, label: str, pace: Pace) -> str:
        """Take the watchdog's judgement; give what is to be shown."""
        self._pace[label] = pace
        return self._show(label)

    async def run(self, label: str, following: Coroutine[Any, Any, None]) -> None:
        """Run the following of a stream to its end, or until `rebuild` cuts it off.

        Raises:
            Exception: what it raises.
        """
        task: Task = asyncio.ensure_future(following)
        cut: Task = asyncio.get_running_loop().create_future()
        self._cuts[label] = cut
        self._said.setdefault(label, "catching_up")  # until it speaks
        try:
            await asyncio.wait({task, cut}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        finally:
            del self._cuts[label]
            self._pace.pop(label, None)
            await self._end(label, task)

    def rebuild(self, label: str) -> None:
        """Cut the following of a stream off, whatever it waits for: its follower begins anew."""
        cut = self._cuts.get(label)
        if cut is not None and not cut.done():
            cut.set_result(None)

    async def _end(self, label: str, task: Task) -> None:
        if task.done():
            return
        task.cancel()
        self._left.add(task)
        task.add_done_callback(self._forget)
        await asyncio.wait({task}, timeout=self.letting_go_s)
        if not task.done():
            log.error("following_does_not_end", stream=label)

    def _forget(self, task: Task) -> None:
        self._left.discard(task)
        if not task.cancelled():
            task.exception()  # seen: it is of no interest any more

    def _show(self, label: str) -> str:
        said, pace = self._said[label], self._pace.get(label)
        if label not in self._cuts or pace is None:
            return said
        if pace is Pace.STALLED or (pace is Pace.BEHIND and said == "live"):
            return pace
        return said

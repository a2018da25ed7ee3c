"""Watchdog: whether each stream gets on, measured by Horizon's latest ledger, not by silence.

A loop that hangs stops its heartbeat, and systemd ends the process for it (`telemetry/progress`).
Here is what no heartbeat shows: a stream whose loop goes round while its position stands still.
It is compared with the tip of the Horizon that it is read from:

- The tip is read, and our position is near it: *live*, however old the tip is. That Horizon lags
  behind the network is upstream's state, never ours.
- We are far from it, and move: *behind*.
- The tip moves on, and we do not: *stalled*. The stream is begun anew: a new claim of its cursor,
  a new connection, nothing remembered. When that has not helped `rebuilds` times, the process ends
  itself, for whoever restarts it.

A stream whose reader says that it cannot read (or cannot write) for now is begun anew as well, for
its own memory may be what is wrong: a record that a stream once showed, and that no page confirms,
stops it until it is forgotten. But the process does not end for it. An instance whose root moves
while its pages fail, or lack what its stream has shown, is upstream's fault, and a restart reads
the same pages. Pages that stand still and are *empty* look like a quiet account: no single instance
gives that away, but the audit of recent ledgers does.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from paywatch.domain.ledger import Position
from paywatch.errors import PaywatchError
from paywatch.service.streams import Pace, Streams
from paywatch.store.cursors import Cursor
from paywatch.telemetry import Metrics

_LEDGER: Final = timedelta(seconds=5)  # from one to the next: where only numbers are known

log = structlog.stdlib.get_logger(__name__)


class Tip(Protocol):
    """The latest ledger of the Horizon that the streams are read from."""

    @property
    def latest(self) -> int:
        """Its number."""
        ...

    @property
    def closed_at(self) -> datetime:
        """When it closed."""
        ...


class NothingHelps(PaywatchError):
    """A stream stalls, and beginning it anew does not help: the process must begin anew."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is too long.

    Attributes:
        near: from our position to the tip, by the ledger's clock.
        standstill: without moving, by our clock. Longer than any wait of a healthy stream (a
            request's 30 s, an empty page each 15 s), and shorter than the 120 s after which its
            heartbeat counts as stopped: a stream that hangs is begun anew before systemd ends all.
        moved_on: how far the tip must have moved meanwhile, in ledgers.
        rebuilds: times that a stream is begun anew before the process is.
    """

    near: timedelta = timedelta(seconds=60)
    standstill: timedelta = timedelta(seconds=90)
    moved_on: int = 6
    rebuilds: int = 3


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a stream was first seen to be, and not to leave."""

    position: Position
    read_through_at: datetime | None  # the ledger's clock
    since: datetime  # our clock
    tip: int  # Horizon's latest ledger then


def judge(stand: Stand, tip: Tip, now: datetime, bounds: Bounds) -> Pace:
    """Compare a stream with the tip."""
    if _distance(stand, tip) <= bounds.near:
        return Pace.LIVE
    stood = now - stand.since >= bounds.standstill
    if stood and tip.latest - stand.tip >= bounds.moved_on:
        return Pace.STALLED
    return Pace.BEHIND


def _distance(stand: Stand, tip: Tip) -> timedelta:
    """By the ledger's clock; before anything was read, by the number of ledgers."""
    if stand.read_through_at is not None:
        return tip.closed_at - stand.read_through_at
    return (tip.latest - stand.position.ledger) * _LEDGER


@dataclass
class _Watched:
    stand: Stand
    rebuilds: int = 0  # since it last moved


@dataclass
class Watchdog:
    """Looks after the streams that this process follows.

    It is shown what the gauges have just read: so it judges, and acts, only while both Horizon and
    the database answer. While one of them does not, beginning anew helps nobody.
    """

    streams: Streams
    metrics: Metrics
    clock: Callable[[], datetime]
    bounds: Bounds = field(default_factory=Bounds)
    _watched: dict[str, _Watched] = field(default_factory=dict, init=False)

    def look(self, cursors: Iterable[Cursor], tip: Tip) -> None:
        """Judge each stream by its committed cursor, and begin anew what has stalled.

        Raises:
            NothingHelps: end the process.
        """
        followed = self.streams.followed
        places = {c.label: c for c in cursors if c.label in followed}
        for gone in self._watched.keys() - places.keys():
            del self._watched[gone]
        for label, cursor in places.items():
            self._look_at(label, cursor, tip)

    def _look_at(self, label: str, cursor: Cursor, tip: Tip) -> None:
        watched = self._watched.get(label)
        here = Stand(cursor.position, cursor.read_through_at, self.clock(), tip.latest)
        if watched is None or _place(watched.stand) != _place(here):
            watched = self._watched[label] = _Watched(here)
        pace = judge(watched.stand, tip, self.clock(), self.bounds)
        shown = Pace.STALLED if watched.rebuilds and pace is Pace.BEHIND else pace
        self.metrics.stream_state.labels(stream=label).state(self.streams.judge(label, shown))
        if pace is Pace.STALLED:
            self._rebuild(label, watched, here)

    def _rebuild(self, label: str, watched: _Watched, here: Stand) -> None:
        said = self.streams.said(label)
        if watched.rebuilds >= self.bounds.rebuilds:
            if said == "retrying":
                return
            raise NothingHelps(
                f"the stream of {label} stands still at ledger {here.position.ledger} while Horizon"
                f" went on to {here.tip}, and was begun anew {watched.rebuilds} times without"
                " success: the process ends, to be started again"
            )
        watched.rebuilds += 1
        log.error(
            "stream_rebuilt",
            stream=label,
            ledger=here.position.ledger,
            tip=here.tip,
            stood_s=(here.since - watched.stand.since).total_seconds(),
            said=said,
            time=watched.rebuilds,
        )
        watched.stand = here
        self.metrics.rebuilds.labels(stream=label).inc()
        self.streams.rebuild(label)


def _place(stand: Stand) -> tuple[Position, datetime | None]:
    return stand.position, stand.read_through_at

"""Gauges: look at the database and at Horizon every few seconds, and show what is there.

The counters and histograms are told by those who do the work; a gauge is a state, and is read in
this one place.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from paywatch.domain.checkout import SessionStatus
from paywatch.errors import HorizonError
from paywatch.service.waiting import wait_for
from paywatch.service.watchdog import Watchdog
from paywatch.store import cursors, gauges, outbox
from paywatch.store.cursors import Cursor
from paywatch.store.outbox import Depth
from paywatch.store.retry import DATABASE_ERRORS
from paywatch.telemetry import Metrics

MANY_SESSIONS: Final = 100_000  # counted in some 20 ms

log = structlog.stdlib.get_logger(__name__)


class Root(Protocol):
    """Where a Horizon stands."""

    @property
    def latest(self) -> int:
        """The number of the latest ledger that it serves."""
        ...

    @property
    def closed_at(self) -> datetime:
        """When that ledger closed."""
        ...

    @property
    def elder(self) -> int:
        """The number of the oldest ledger that it keeps."""
        ...


class InstanceState(Protocol):
    """How one Horizon of several is."""

    @property
    def name(self) -> str:
        """Its host, with the port if there is one: a label of metrics."""
        ...

    @property
    def root(self) -> Root | None:
        """What it said last; None if it has not answered yet."""
        ...

    @property
    def requests_left(self) -> int:
        """What its budget has left."""
        ...

    @property
    def breaker(self) -> str:
        """One of `BREAKER_STATES`."""
        ...

    @property
    def serves(self) -> bool:
        """Whether the live streams are read from it."""
        ...


class Upstream(Protocol):
    """The Horizons of the settings."""

    async def root(self) -> Root:
        """Read the root document of the one that is furthest; raises HorizonError."""
        ...

    def states(self) -> Sequence[InstanceState]:
        """How each one is."""
        ...


@dataclass
class Gauges:
    """Keeps the gauges of one daemon true.

    Attributes:
        upstream: asked where Horizon stands; None where no role needs Horizon.
        interval_s: seconds between two looks.
        count_all_s: seconds between two counts of the sessions that are over, if they are many.
        watchdog: shown the streams and the tip whenever both could be read.
        beat: called after each look: one that hangs would leave the watchdog blind.
        tip_closed_at: when Horizon's latest ledger closed; None if it did not answer.
        lags: by account, how far the live stream is behind Horizon; None if nothing is known yet.
    """

    engine: AsyncEngine
    upstream: Upstream | None
    metrics: Metrics
    clock: Callable[[], datetime]
    watchdog: Watchdog | None = None
    beat: Callable[[], None] = lambda: None
    interval_s: float = 10.0
    count_all_s: float = 300.0
    tip_closed_at: datetime | None = field(default=None, init=False)
    lags: dict[str, timedelta | None] = field(default_factory=dict, init=False)
    _count_all_at: datetime = field(default=datetime.min.replace(tzinfo=UTC), init=False)

    async def run(self, stop: asyncio.Event) -> None:
        """Look every `interval_s` until `stop` is set; raises what the watchdog raises."""
        while not stop.is_set():
            await self.run_once()
            self.beat()
            await wait_for(stop, self.interval_s)

    async def run_once(self) -> None:
        """Look once; what cannot be read keeps its last value."""
        root = await self._read_root()
        if root is not None:
            self._show_upstream(root)
        if self.upstream is not None:
            for state in self.upstream.states():
                self._show_instance(state)
        try:
            async with self.engine.connect() as conn:
                sessions = await self._count_sessions(conn)
                depth = await outbox.depth(conn, self.clock())
                streams = await cursors.read_all_followed(conn)
                accounts = await gauges.count_accounts(conn)
        except DATABASE_ERRORS as error:
            log.warning("gauges_not_read", error=type(error).__name__)
            return
        for by, number in accounts.items():
            self.metrics.accounts.labels(by=by).set(number)
        self._show_sessions(sessions)
        self._show_outbox(depth)
        self._show_streams(streams, root)
        if self.watchdog is not None and root is not None:
            self.watchdog.look(streams, root)

    async def _count_sessions(self, conn: AsyncConnection) -> dict[SessionStatus, int]:
        """Count what is open at each look; what is over only seldom, once it is a lot."""
        now = self.clock()
        if now < self._count_all_at:
            return await gauges.count_open_sessions(conn)
        found = await gauges.count_all_sessions(conn)
        if sum(found.values()) > MANY_SESSIONS:
            self._count_all_at = now + timedelta(seconds=self.count_all_s)
        return found

    async def _read_root(self) -> Root | None:
        if self.upstream is None:
            return None
        try:
            root = await self.upstream.root()
        except HorizonError as error:
            log.warning("upstream_not_read", error=str(error))
            self.tip_closed_at = None
            return None
        self.tip_closed_at = root.closed_at
        return root

    def _show_upstream(self, root: Root) -> None:
        self.metrics.upstream_ledger.set(root.latest)
        self.metrics.upstream_lag_seconds.set(self._since(root.closed_at))

    def _show_instance(self, state: InstanceState) -> None:
        label = {"horizon": state.name}
        self.metrics.horizon_budget.labels(**label).set(state.requests_left)
        self.metrics.horizon_breaker.labels(**label).state(state.breaker)
        if state.root is not None:
            self.metrics.horizon_tip.labels(**label).set(state.root.latest)
            self.metrics.horizon_elder.labels(**label).set(state.root.elder)
            self.metrics.horizon_lag.labels(**label).set(self._since(state.root.closed_at))

    def _show_sessions(self, sessions: dict[SessionStatus, int]) -> None:
        for status, number in sessions.items():
            self.metrics.sessions.labels(status=status).set(number)

    def _show_outbox(self, depth: Depth) -> None:
        self.metrics.outbox_depth.set(depth.pending)
        self.metrics.dead_letters.set(depth.dead)
        oldest = depth.oldest_due_at
        self.metrics.outbox_oldest.set(0 if oldest is None else self._since(oldest))

    def _show_streams(self, streams: Sequence[Cursor], root: Root | None) -> None:
        self.lags = {}
        for cursor in streams:
            read_through_at = cursor.read_through_at
            self.metrics.position_ledger.labels(stream=cursor.label).set(cursor.position.ledger)
            self.lags[cursor.label] = self._show_lag(cursor, root) if root else None
            if read_through_at is not None:
                lag = self._since(read_through_at)
                self.metrics.clock_lag_seconds.labels(stream=cursor.label).set(lag)

    def _show_lag(self, cursor: Cursor, root: Root) -> timedelta | None:
        """The cursor may have passed the tip since the tip was read: that is no lag."""
        ledgers = max(0, root.latest - cursor.position.ledger)
        self.metrics.lag_ledgers.labels(stream=cursor.label).set(ledgers)
        if cursor.read_through_at is None:
            return None
        lag = max(timedelta(0), root.closed_at - cursor.read_through_at)
        self.metrics.lag_seconds.labels(stream=cursor.label).set(lag.total_seconds())
        return lag

    def _since(self, moment: datetime) -> float:
        return max(0.0, (self.clock() - moment).total_seconds())

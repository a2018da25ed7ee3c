"""Follow: one stream, while this process leads it, from its cursor on."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from random import Random

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from paywatch.domain.ledger import Batch
from paywatch.errors import CursorMoved, DatabaseAway, HorizonError, NotFound
from paywatch.service.ahead import read_ahead
from paywatch.service.elect import Election
from paywatch.service.settle import Order, Settler
from paywatch.service.standing import remedy
from paywatch.service.streams import Streams
from paywatch.service.waiting import either, unless, wait_for
from paywatch.store import cursors
from paywatch.store.cursors import Cursor
from paywatch.store.retry import in_transaction
from paywatch.telemetry import Metrics, Progress

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a listener waits, in seconds."""

    accounts_s: float = 2.0  # between two looks for new accounts
    again_s: float = 1.0  # before a leader claims a cursor again that somebody has moved
    stopped_s: float = 60.0  # between two tries of a stream that may not go on
    allowance_s: float = 120.0  # a stream without progress for so long is stuck


@dataclass(frozen=True, slots=True)
class Stream:
    """What is followed.

    Attributes:
        name: of its cursor.
        label: in logs, health and metrics: the account, or `network`.
        batches: yields what comes after a claimed cursor, in ledger order, each batch from the last
            one's end. While nothing can be read, empty batches come: the reader is at work. It
            survives whatever Horizon does by itself; raises HistoryGap, NetworkReset or
            WrongNetwork where going on would lose money.
    """

    name: str
    label: str
    batches: Callable[[Cursor], AsyncGenerator[Batch, None]]


@dataclass(frozen=True)
class Follower:
    """Follows streams, each call one of them."""

    engine: AsyncEngine
    election: Election
    settler: Settler
    clock: Callable[[], datetime]
    rng: Random
    metrics: Metrics
    progress: Progress
    timing: Timing = Timing()
    streams: Streams = field(default_factory=Streams)

    async def keep_following(self, stream: Stream, stop: asyncio.Event) -> None:
        """Follow one stream whenever this process leads it, until `stop` is set."""
        show = partial(self._show, stream)
        show(leads=False)
        with self.election.candidate(stream.name, show):
            while not stop.is_set():
                lost = await unless(stop, self.election.lead(stream.name))
                if lost is not None:
                    async with either(stop, lost) as over:
                        await self._follow_as_leader(stream, over)
        self.streams.forget(stream.label)
        self.metrics.stream_leader.remove(stream.label)
        self.metrics.stream_state.remove(stream.label)

    async def _follow_as_leader(self, stream: Stream, over: asyncio.Event) -> None:
        """Follow until the leadership is over, or something has to be looked at anew."""
        name = f"listen:{stream.label}"
        self.progress.watch(name, timedelta(seconds=self.timing.allowance_s), self.clock())
        try:
            await self.streams.run(stream.label, self.follow(stream, over))
        except DatabaseAway:
            log.warning("batch_left", stream=stream.label)
        except CursorMoved as moved:
            log.warning("cursor_moved", stream=stream.label, why=str(moved))
            await wait_for(over, self.timing.again_s)
        except HorizonError as error:
            # Going on would lose money, and so would forgetting: say it, and look again.
            why = {"error": str(error), "remedy": remedy(error, stream.name)}
            log.error("stream_stopped", stream=stream.label, **why)  # noqa: TRY400 # no bug of ours to trace
            self._state(stream, "stopped")
            self.streams.stop(stream.label, "; ".join(filter(None, why.values())))
            await wait_for(over, self.timing.stopped_s)
        finally:
            self.progress.forget(name)
        if over.is_set():
            self._state(stream, "standby")

    async def follow(self, stream: Stream, over: asyncio.Event) -> None:
        """Take the stream over and settle its batches until `over` is set.

        While one batch is settled the next is read. A batch that was begun is finished before it
        returns, unless the database is away.

        Raises:
            CursorMoved: another instance took the stream over.
            DatabaseAway: `over` is set, and the database did not take the batch.
            HistoryGap, NetworkReset, WrongNetwork: the stream may not go on.
        """
        claim = await self._claim(stream, over)
        self._state(stream, "catching_up")
        async with aclosing(read_ahead(stream.batches(claim), over)) as batches:
            async for batch in batches:
                order = Order(batch, by=claim.stream, claim=claim)
                await self.settler.settle(order, lambda: self._retrying(stream), over)
                self._moved(stream, batch)

    async def _claim(self, stream: Stream, over: asyncio.Event) -> Cursor:
        claim = await in_transaction(
            self.engine,
            lambda conn: cursors.claim(conn, stream.name, self.clock()),
            rng=self.rng,
            on_retry=lambda _: self._beat(stream),
            stop=over,
        )
        if claim is None:
            raise NotFound(f"there is no cursor of the stream {stream.name}")
        return claim

    def _show(self, stream: Stream, leads: bool) -> None:
        self.metrics.stream_leader.labels(stream=stream.label).set(leads)
        if not leads:
            self._state(stream, "standby")

    def _beat(self, stream: Stream) -> None:
        self.progress.beat(f"listen:{stream.label}", self.clock())

    def _retrying(self, stream: Stream) -> None:
        self._beat(stream)
        self._state(stream, "retrying")

    def _moved(self, stream: Stream, batch: Batch) -> None:
        self._beat(stream)
        self._state(stream, _state_of(batch))
        self.metrics.position_ledger.labels(stream=stream.label).set(batch.upto.ledger)
        if batch.closed_at is not None:
            lag = (self.clock() - batch.closed_at).total_seconds()
            self.metrics.clock_lag_seconds.labels(stream=stream.label).set(lag)

    def _state(self, stream: Stream, state: str) -> None:
        shown = self.streams.say(stream.label, state)
        self.metrics.stream_state.labels(stream=stream.label).state(shown)


def _state_of(batch: Batch) -> str:
    if batch.says_nothing:
        return "retrying"
    return "unfunded" if batch.unfunded else "live"

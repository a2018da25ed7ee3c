"""Elect: which streams this process leads, and until when.

One connection holds the locks of all streams that this process leads, and says something every
half second; with the connection all of them are lost. Nothing about money depends on it: it only
decides who tries, and the cursor's epoch fences whoever tries although another one leads.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from paywatch.service.waiting import wait_for
from paywatch.store import leadership
from paywatch.store.retry import DATABASE_ERRORS, transient_reason, wait_before
from paywatch.telemetry import Progress

log = structlog.stdlib.get_logger(__name__)

HEART: Final = "elect"


@dataclass(frozen=True, slots=True)
class Timing:
    """How often a process asks for locks, in seconds."""

    round_s: float = 0.5  # well below the server's `idle_session_timeout`, which ends a silent one
    answer_s: float = 2.0  # a database that is silent for so long is away
    allowance_s: float = 60.0  # the wait for a database that is away is shorter


@dataclass
class Election:
    """The leaderships of one process.

    Attributes:
        engine: makes connections that hold locks (`store.engine.create_lock_engine`).
        led: the streams that this process leads now.
    """

    engine: AsyncEngine
    clock: Callable[[], datetime]
    rng: Random
    progress: Progress
    timing: Timing = Timing()
    led: set[str] = field(default_factory=set, init=False)
    _standing: dict[str, Callable[[bool], None]] = field(default_factory=dict, init=False)
    _standby: set[str] = field(default_factory=set, init=False)
    _waiting: dict[str, asyncio.Future[asyncio.Event]] = field(default_factory=dict, init=False)
    _asked: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _lost: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    @contextmanager
    def candidate(self, stream: str, on_change: Callable[[bool], None]) -> Iterator[None]:
        """Stand for a stream within the block; at its end the stream's lock is given back.

        Args:
            stream: its name.
            on_change: told whether this process leads it, when that changes.
        """
        self._standing[stream] = on_change
        try:
            yield
        finally:
            del self._standing[stream]
            self._asked.set()

    async def lead(self, stream: str) -> asyncio.Event:
        """Wait until this process leads a stream.

        That is found out anew at each call: a process that was frozen does not know yet that it
        leads no more.

        Returns:
            An event that is set when it leads no more.
        """
        elected: asyncio.Future[asyncio.Event] = asyncio.get_running_loop().create_future()
        self._waiting[stream] = elected
        self._asked.set()
        try:
            return await elected
        finally:
            del self._waiting[stream]

    async def run(self, stop: asyncio.Event) -> None:
        """Hold elections until `stop` is set and nobody stands any more.

        What is led when `stop` is set is led until its last batch is settled.
        """
        self.progress.watch(HEART, timedelta(seconds=self.timing.allowance_s), self.clock())
        retry = 0
        while not stop.is_set():
            try:
                async with self.engine.connect() as conn:
                    while self._standing or not stop.is_set():
                        self._asked.clear()
                        await self._round(conn)
                        retry = 0
                        await wait_for(self._asked, self.timing.round_s)
                    await self._round(conn)  # whoever comes next waits for no connection to end
            except DATABASE_ERRORS as error:
                retry += 1
                self._lose(error, retry)
                await wait_for(stop, wait_before(retry, self.rng))
        self.progress.forget(HEART)

    async def _round(self, conn: AsyncConnection) -> None:
        """Give back what nobody stands for, take what is free, and tell who asked before."""
        asked = dict(self._waiting)
        async with leadership.answered_within(conn, self.timing.answer_s):
            if left := self.led - self._standing.keys():
                await leadership.release(conn, left)
                self.led -= left
            new = await leadership.acquire(conn, sorted(asked.keys() - self.led))
        self.led |= new
        self._show(new, leads=True)
        self.progress.beat(HEART, self.clock())
        for stream in asked.keys() & self.led:
            if not asked[stream].done():
                asked[stream].set_result(self._lost)
        self._tell(new, asked.keys() - self.led)

    def _show(self, streams: set[str], *, leads: bool) -> None:
        for stream in streams & self._standing.keys():
            self._standing[stream](leads)

    def _tell(self, new: set[str], standby: set[str]) -> None:
        if new:
            log.info("leading", streams=len(self.led), new=len(new))
        if standby - self._standby:
            log.info("standing_by", streams=len(standby))
        self._standby = standby

    def _lose(self, error: Exception, retry: int) -> None:
        """Lead nothing any more: the locks went with their connection."""
        reason = transient_reason(error)
        if reason is None:
            raise error
        log.warning("leadership_lost", streams=len(self.led), reason=reason, retry=retry)
        self.progress.beat(HEART, self.clock())
        self._show(self.led, leads=False)
        self.led.clear()
        self._lost.set()
        self._lost = asyncio.Event()

"""One daemon of the simulation: the real wiring and every role, without its HTTP server."""

import asyncio
from collections.abc import Callable, Mapping
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

from paywatch import config
from paywatch.store.engine import create_engine
from paywatch.webhooks.sender import Sender
from paywatch.wiring import House, Role, furnish
from paywatch.wiring.outside import Outside
from paywatch.wiring.roles import Roles
from simulation.loop import START_S
from simulation.postgres import Gate
from simulation.process import Process, current
from simulation.trace import Trace
from simulation.wire import Wire

EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)  # what the clock shows when the loop begins


class Clock:
    """The wall clock of one process: the loop's time, and how much it is wrong."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.wrong = timedelta(0)

    def __call__(self) -> datetime:
        """Tell the time."""
        return EPOCH + timedelta(seconds=self._loop.time() - START_S) + self.wrong


class Instance:
    """A daemon that can be started, stopped, killed, frozen, and given a wrong clock.

    Args:
        name: in the trace; each start has a number of its own.
        settings: `PAYWATCH_…`; the database's URL among them.
        seed: of everything that it draws.

    Attributes:
        house: its parts, while it runs.
        ended_by: what ended the last run by itself; None if it was told to.
    """

    def __init__(
        self,
        name: str,
        settings: Mapping[str, str],
        seed: str,
        *,
        gate: Gate,
        wire: Wire,
        trace: Trace,
        on_end: Callable[["Instance"], None] = lambda _instance: None,
    ) -> None:
        self.name = name
        self.clock = Clock(wire.loop)
        self.house: House | None = None
        self.ended_by: BaseException | None = None
        self._settings = config.load(settings)
        self._seed = seed
        self._gate = gate
        self._wire = wire
        self._trace = trace
        self._on_end = on_end
        self._starts = 0
        self._stop = asyncio.Event()
        self._process: Process | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether it was started, and neither stopped nor ended."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Start it; must not be running."""
        if self.is_running:
            raise RuntimeError(f"{self.name} runs already")
        self._starts += 1
        process = Process(f"{self.name}.{self._starts}")
        process.on_crash = lambda: self._die(process)
        self._process, self._stop, self.ended_by = process, asyncio.Event(), None
        self._trace.note(process.name, "starts")
        context = copy_context()
        context.run(current.set, process)
        self._task = self._wire.loop.create_task(self._live(process), context=context)
        self._task.add_done_callback(lambda task: self._end(process, task))

    def crash(self) -> None:
        """Kill it: nothing of it has any effect from now on."""
        if self._process is not None and self.is_running:
            self._die(self._process)

    def freeze(self, seconds: float) -> None:
        """Let it neither send nor take in anything for a while."""
        if self._process is not None and self.is_running:
            self._trace.note(self._process.name, f"is frozen for {seconds:.3f} s")
            self._process.frozen_until = self._wire.loop.time() + seconds

    async def stop(self) -> None:
        """Stop it as SIGTERM does, and wait until it is gone."""
        self._stop.set()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def gone(self) -> None:
        """Wait until it is gone, after a crash."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _live(self, process: Process) -> None:
        rng = Random(f"{self._seed}/{process.name}")
        outside = Outside(self.clock, self._wire.loop.time, rng, rng.randbytes)
        url = self._settings.database_url
        if url is None:
            raise RuntimeError("the simulation gives every instance a database")
        engine = create_engine(url.get_secret_value())
        try:
            async with (
                furnish(self._settings, engine, outside) as house,
                Sender(house.policy) as sender,
                asyncio.TaskGroup() as group,
            ):
                self.house = house
                roles = Roles(house, tuple(Role), self._stop, sender)
                group.create_task(roles.run())
                group.create_task(house.gauges(upstream=True).run(self._stop))
        finally:
            self.house = None
            if not process.is_dead:
                await engine.dispose()

    def _die(self, process: Process) -> None:
        if process.is_dead:
            return
        self._trace.note(process.name, "is killed")
        process.is_dead = True
        self._gate.crash(process)
        self._wire.cut(process)
        if self._task is not None:
            self._task.cancel()

    def _end(self, process: Process, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None and not process.is_dead and not self._stop.is_set():
            error = RuntimeError("ended, and nobody has told it to")
        if error is not None and not process.is_dead:
            self.ended_by = error
        process.is_dead = True
        self._gate.crash(process)
        self._wire.cut(process)
        self._trace.note(process.name, f"ended: {self.ended_by!r}" if self.ended_by else "ended")
        self._on_end(self)

"""One instance of several: how it is, as what it was asked has shown."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

import structlog

from paywatch.domain.ledger import Position
from paywatch.errors import HorizonError, HorizonUnavailable, WrongNetwork
from paywatch.horizon.arrivals import Arrivals
from paywatch.horizon.breaker import Breaker, BreakerState
from paywatch.horizon.choice import Grade
from paywatch.horizon.documents import Root
from paywatch.horizon.source import HorizonSource
from paywatch.horizon.transport import NOT_FOUND, RATE_LIMITED, TOO_LARGE

EXCLUDED: Final = "excluded"  # instead of a breaker's state, for an instance of another network
# What says nothing of the instance's health; the budget heeds a 429.
_NO_FAULT: Final = frozenset({NOT_FOUND, RATE_LIMITED, TOO_LARGE})

_log = structlog.get_logger()
T = TypeVar("T")
Question = Callable[[HorizonSource], Awaitable[T]]


@dataclass(frozen=True, slots=True)
class InstanceState:
    """How an instance is, for gauges, health and people.

    Attributes:
        name: its host, with the port if the address has one.
        root: what it said last; None if it has not answered yet.
        requests_left: what its budget has left.
        breaker: `closed`, `half_open` or `open`; `excluded` while it serves another network.
        serves: whether the live streams are read from it.
    """

    name: str
    root: Root | None
    requests_left: int
    breaker: str
    serves: bool


class Instance:
    """An instance, its budget and its breakers.

    Args:
        name: in logs and metrics.
        source: how it is read.
        rng: jitter of the breakers.
        lives_s: a stream that ends later than that after its beginning has not failed.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        name: str,
        source: HorizonSource,
        rng: random.Random,
        lives_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.source = source
        self.polite = source.polite()
        self.is_foreign = False
        self.looked_at = float("-inf")
        self._pages = Breaker(rng, clock)
        self._streams = Breaker(rng, clock)
        self._lives_s = lives_s
        self._clock = clock
        self._look: asyncio.Task[Root | HorizonError] | None = None

    async def close(self) -> None:
        """Close its connections."""
        if self._look is not None:
            self._look.cancel()
            await asyncio.wait([self._look])
        await self.source.close()

    @property
    def breaker(self) -> BreakerState:
        """The worse of its two: pages, and streams, which may fail where pages do not."""
        states = {self._pages.state, self._streams.state}
        worst_first = (BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED)
        return next(state for state in worst_first if state in states)

    def state(self, *, serves: bool) -> InstanceState:
        """Describe it."""
        breaker = EXCLUDED if self.is_foreign else str(self.breaker)
        left = self.source.budget.left
        return InstanceState(self.name, self.source.last_root, left, breaker, serves)

    def grade(self, newest: datetime | None, behind_s: float, reserve: float) -> Grade:
        """Say how it is beside the newest ledger that any instance has shown.

        By the ledger's clock: after a reset the dead history has the higher numbers.
        """
        root, budget = self.source.last_root, self.source.budget
        if self.is_foreign:
            return Grade.FOREIGN
        if self.breaker is BreakerState.OPEN:
            return Grade.FAILING
        if budget.is_refused:
            return Grade.REFUSING
        if root and newest and (newest - root.closed_at).total_seconds() > behind_s:
            return Grade.BEHIND
        return Grade.SPENT if budget.wait_s(reserve) > 0 else Grade.WELL

    async def answer(self, question: Question[T], *, politely: bool) -> T:
        """Ask it, and note how it did; raises what the source raises."""
        try:
            answer = await question(self.polite if politely else self.source)
        except HorizonError as error:
            self._note(error)
            raise
        self.is_foreign = False
        self._pages.succeeded()
        return answer

    @property
    def may_be_looked_at(self) -> bool:
        """Whether a look at its root may be of use: no breaker's pause goes on.

        Where no other instance is of use it is looked at all the same.
        """
        return all(b.state is not BreakerState.OPEN or b.is_due for b in self._breakers)

    def look(self) -> asyncio.Task[Root | HorizonError]:
        """Read what it says of itself, in a task that several may wait for, and that never fails.

        A look decides whether an instance whose breaker is open is tried again: it costs little,
        and a live stream that had to try a Horizon that hangs would stand still meanwhile.
        """
        if self._look is None or self._look.done():
            self.looked_at = self._clock()
            self._look = asyncio.create_task(self._look_once(), name=f"look at {self.name}")
        return self._look

    async def _look_once(self) -> Root | HorizonError:
        try:
            root = await self.source.look()
        except HorizonError as error:
            self._note(error)
            return error
        self.is_foreign = False
        for breaker in self._breakers:
            breaker.tried()
        return root

    def connect(self, account: str, after: Position) -> Arrivals:
        """Open the stream of what comes after a position, and note how it does."""
        return self.source.connect(account, after, self._noted)

    async def _noted(
        self, stream: AsyncGenerator[dict[str, Any], None]
    ) -> AsyncGenerator[dict[str, Any], None]:
        began_at = self._clock()
        try:
            async with aclosing(stream):
                async for record in stream:
                    self._streams.succeeded()
                    yield record
        except HorizonUnavailable as error:
            if error.reason not in _NO_FAULT and self._clock() - began_at < self._lives_s:
                self._streams.failed()
            raise
        self._streams.succeeded()  # a goodbye

    @property
    def _breakers(self) -> tuple[Breaker, Breaker]:
        return self._pages, self._streams

    def _note(self, error: HorizonError) -> None:
        if isinstance(error, HorizonUnavailable) and error.reason not in _NO_FAULT:
            self._pages.failed()
        if isinstance(error, WrongNetwork) and not self.is_foreign:
            self.is_foreign = True
            _log.error("horizon_excluded", horizon=self.name, error=str(error))

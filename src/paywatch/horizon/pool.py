"""Several Horizons as one: asked in the operator's order, changed over without loss.

A page and the root that it is judged by always come from the same instance, so that what one of
them lacks is never claimed by another's tip; and a position only follows what a page has shown.
Hence changing over loses nothing, whenever it happens: the next page is read from the same position
on, wherever that is.
"""

import asyncio
import random
import time
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Container,
    Mapping,
    Sequence,
)
from datetime import datetime
from types import TracebackType
from typing import Final, Self, TypeVar

import structlog

from paywatch.domain.announcement import Trace, TxState
from paywatch.domain.ledger import Batch, Position
from paywatch.errors import HorizonError, HorizonUnavailable
from paywatch.horizon.choice import Grade, choose
from paywatch.horizon.documents import Root
from paywatch.horizon.instance import Instance, InstanceState, Question
from paywatch.horizon.live import AccountStream
from paywatch.horizon.network import NetworkStream
from paywatch.horizon.pages import Page
from paywatch.horizon.polite import RESERVE
from paywatch.horizon.reader import Reader
from paywatch.horizon.reconnects import Reconnects
from paywatch.horizon.source import HorizonSource
from paywatch.horizon.timing import Timing
from paywatch.horizon.transport import NOT_FOUND
from paywatch.horizon.turns import Turn

FIRST_LOOK_S: Final = 2.0  # the first reader waits so long to know how the instances are
GRACE_S: Final = 1.0  # others may answer so long after the first has
PATIENCE: Final = 1.5  # times a request's time limit: no reader waits for all of a row to hang
MORE: Final = 0.25  # of a budget: what one that is changed to must have left

_log = structlog.get_logger()
T = TypeVar("T")


class HorizonPool:
    """All instances of the settings.

    Args:
        instances: in the order in which they are preferred; closed with the pool.
        timing: how long to wait for what.
        rng: jitter of the waits.
        on_reconnect: told the reason each time that a stream begins anew.
        on_change: told the instance that the live streams are read from now.
        sleep: waits that many seconds.
        clock: seconds that never go back.
        is_polite: leaves a reserve of each budget to others.
    """

    def __init__(  # noqa: PLR0913 - the boundary is wired here; all but the first have defaults
        self,
        instances: Sequence[Instance],
        timing: Timing | None = None,
        *,
        rng: random.Random | None = None,
        on_reconnect: Callable[[str], None] = lambda _: None,
        on_change: Callable[[str], None] = lambda _: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        is_polite: bool = False,
    ) -> None:
        self._instances = tuple(instances)
        self._timing = timing or Timing()
        self._rng = rng or random.SystemRandom()
        self._on_reconnect = on_reconnect
        self._on_change = on_change
        self._sleep = sleep
        self._clock = clock
        self._is_polite = is_polite
        self._current = 0
        self._well_since: list[float | None] = [None] * len(self._instances)

    def polite(self) -> "HorizonPool":
        """The same instances for work that can wait: the live streams go first."""
        return HorizonPool(
            self._instances, self._timing, rng=self._rng, clock=self._clock, is_polite=True
        )

    async def __aenter__(self) -> Self:
        """Use as a context manager to close the connections."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all connections."""
        for instance in self._instances:
            await instance.close()

    @property
    def sources(self) -> Mapping[str, HorizonSource]:
        """Each instance alone, by name."""
        return {instance.name: instance.source for instance in self._instances}

    @property
    def current(self) -> Instance:
        """The instance that is asked first."""
        return self._instances[self._current]

    @property
    def requests_left(self) -> int:
        """What the budget of that instance has left."""
        return self.current.source.budget.left

    def states(self) -> list[InstanceState]:
        """How each instance is, in the order in which they are preferred."""
        return [instance.state(serves=instance is self.current) for instance in self._instances]

    async def root(self) -> Root:
        """Look at every instance, and give what the one that is furthest says of itself.

        Raises:
            HorizonUnavailable: none can be read.
            WrongNetwork: all that answer say so.
        """
        looked_at: Sequence[Instance] = [i for i in self._instances if i.may_be_looked_at]
        if all(i.is_foreign for i in looked_at):  # or none may: then those whose pause is not over
            looked_at = self._instances
        looks = {instance.look(): instance for instance in looked_at}
        await _until_one_succeeds(looks)
        found = [(look.result(), looks[look]) for look in looks if look.done()]
        roots = [root for root, _ in found if isinstance(root, Root)]
        if roots:
            return max(roots, key=lambda root: root.closed_at)
        turn = Turn(len(self._instances))
        for error, instance in found:
            if isinstance(error, HorizonError):
                turn.note(instance, error)
        raise turn.verdict()

    async def check_network(self) -> None:
        """Refuse to go on where every instance that answers serves another network.

        Raises as `root`.
        """
        await self.root()

    async def tip(self) -> Position:
        """Give the start of a new account: after everything that is on the ledger already."""
        return (await self.root()).tip

    async def page(self, account: str, after: Position) -> Batch:
        """Read one page of at most 200 operations.

        Raises:
            HorizonUnavailable: try again; nothing has been claimed.
            HistoryGap, NetworkReset, WrongNetwork: do not go on at any of them.
        """
        return (await self.ask(lambda source: source.page(account, after)))[1]

    async def network_page(self, watched: Container[str], after: Position) -> Batch:
        """Read one page of everybody's operations, and keep those of watched accounts.

        Raises as `page`.
        """
        return (await self.ask(lambda source: source.network_page(watched, after)))[1]

    async def read_page(self, account: str | None, after: Position) -> Page:
        """Read one page unparsed, of one account or of all; raises as `page`."""
        return (await self.ask(lambda source: source.read_page(account, after)))[1]

    async def position_at(self, moment: datetime) -> Position:
        """Find where to begin to read all that was closed at `moment` or later.

        Raises as `page`.
        """
        return (await self.ask(lambda source: source.position_at(moment)))[1]

    async def trace(self, tx_hash: str, watched: Container[str]) -> Trace:
        """Look a transaction up, at the others too while one does not know it.

        What none knows is absent up to the latest tip of those that answered.

        Raises:
            InvalidInput: not a hash.
            HorizonUnavailable: no instance can be asked.
        """
        found = await self._find(
            lambda source: source.trace(tx_hash, watched),
            lambda trace: trace.state is not TxState.UNKNOWN,
        )
        return max(found, key=lambda trace: trace.tip_closed_at)

    async def ledger_hash(self, ledger: int) -> str | None:
        """Tell a ledger's hash, in hex; None if no instance has it.

        Raises as `trace`.
        """
        found = await self._find(
            lambda source: source.ledger_hash(ledger), lambda it: it is not None
        )
        return found[0]

    async def closed_at(self, ledger: int) -> datetime:
        """Tell when a ledger closed; raises as `page`."""
        return (await self.ask(lambda source: source.closed_at(ledger)))[1]

    async def require_history(self, after: Position) -> None:
        """Refuse a cursor that can go on nowhere; raises as `page`."""
        await self.ask(lambda source: source.require_history(after))

    async def _find(self, question: Question[T], is_there: Callable[[T], bool]) -> list[T]:
        """Ask for what one may have and others not: give it alone, or all that said it is absent.

        Raises:
            HorizonUnavailable: no instance can be asked.
        """
        absent: list[T] = []

        async def look_up(source: HorizonSource) -> T:
            found = await question(source)
            if not is_there(found):
                absent.append(found)
                raise HorizonUnavailable(NOT_FOUND, "it is not there")
            return found

        try:
            return [(await self.ask(look_up))[1]]
        except HorizonError:
            if not absent:
                raise
            return absent

    def batches(self, account: str, after: Position) -> AsyncGenerator[Batch, None]:
        """Read an account's payments from a position on, for ever; see `AccountStream`."""
        reader, reconnects = Reader(self), self._reconnects(account)
        return AccountStream(reader, account, after, self._timing, reconnects).batches()

    def network_batches(
        self, watched: Callable[[], Container[str]], after: Position
    ) -> AsyncGenerator[Batch, None]:
        """Read everybody's payments from a position on, for ever; see `NetworkStream`."""
        reconnects = self._reconnects("network")
        return NetworkStream(self, watched, after, self._timing, reconnects).batches()

    def _reconnects(self, stream: str) -> Reconnects:
        return Reconnects(stream, self._timing, self._rng, self._on_reconnect, self._sleep)

    async def ask(self, question: Question[T]) -> tuple[Instance, T]:
        """Ask one instance after the other, until one answers; give it and its answer.

        Raises as `page`.
        """
        turn = Turn(len(self._instances))
        in_turn = await self._in_turn()
        until = self._clock() + PATIENCE * self._timing.get_s
        for instance, grade in in_turn:
            if not turn.goes_on(grade, self._clock() < until):
                continue
            try:
                return instance, await instance.answer(question, politely=self._is_polite)
            except HorizonError as error:
                turn.note(instance, error)
        raise turn.verdict()

    async def _in_turn(self) -> list[tuple[Instance, Grade]]:
        """Give the instances in the order in which to ask them, one that serves always first."""
        await self._look_around()
        grades = self._grades()
        now = self._clock()
        for index, grade in enumerate(grades):
            if grade is not Grade.WELL:
                self._well_since[index] = None
            elif self._well_since[index] is None:
                self._well_since[index] = now
        well_for_s = [0.0 if since is None else now - since for since in self._well_since]
        chosen = choose(grades, well_for_s, self._current, self._timing.return_s)
        if chosen != self._current:
            self._change_to(chosen, grades)
        order = sorted(range(len(grades)), key=lambda i: (i != chosen, grades[i], i))
        return [(self._instances[i], grades[i]) for i in order]

    def _grades(self) -> list[Grade]:
        roots = [i.source.last_root for i in self._instances if not i.is_foreign]
        newest = max((root.closed_at for root in roots if root), default=None)
        reserve = RESERVE if self._is_polite else 0.0
        return [
            instance.grade(
                newest,
                self._timing.behind_s,
                reserve + (0.0 if instance is self.current else MORE),
            )
            for instance in self._instances
        ]

    def _change_to(self, index: int, grades: Sequence[Grade]) -> None:
        before, self._current = self.current, index
        why = grades[self._instances.index(before)].name.lower()
        if not self._is_polite:
            _log.warning("horizon_changed", before=before.name, horizon=self.current.name, was=why)
            self._on_change(self.current.name)

    async def _look_around(self) -> None:
        """Begin to look at those that nobody has looked at for a while; wait for the first time."""
        if len(self._instances) == 1:
            return
        never = [i for i in self._instances if i.looked_at == float("-inf")]
        due_at = self._clock() - self._timing.look_s
        looks = [i.look() for i in self._instances if i.looked_at <= due_at and i.may_be_looked_at]
        if never and looks:
            await asyncio.wait(looks, timeout=FIRST_LOOK_S)


async def _until_one_succeeds(
    looks: Mapping["asyncio.Task[Root | HorizonError]", Instance],
) -> None:
    """Wait for the first that gives a root, and a little for the others; or for all."""
    pending = set(looks)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        if pending and any(isinstance(look.result(), Root) for look in done):
            await asyncio.wait(pending, timeout=GRACE_S)
            return

"""An event loop whose time is virtual: to wait costs nothing, and nothing real is waited for.

Time passes only where every task waits; then it leaps to the next timer. Connections go over
`wire.Wire`. PostgreSQL is real, but from the loop's point of view each answer of it takes no time
(`postgres.Gate`), so that one thing happens after the other, in an order that only a seed decides.
"""

import asyncio
import selectors
import socket
from collections.abc import Callable, Coroutine
from contextvars import Context
from itertools import count
from typing import Any, Final, TypeVar, cast

import aiohttp.connector

from simulation.wire import Wire

START_S: Final = 1000.0  # no timer may take a clock that begins at 0 for one that never ran
_SHORTEST_S: Final = 1e-6
T = TypeVar("T")


class Standstill(Exception):
    """Every task waits for something that nobody will ever do."""


class _Task(asyncio.Task[Any]):
    """A task whose place in a set does not depend on its address in memory."""

    _numbers = count()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._number = next(_Task._numbers)
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class _Leaping(selectors.SelectSelector):
    """Instead of waiting, moves the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START_S

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Standstill("nothing will ever happen again: no task is ready and no timer is set")
        if timeout > 0:
            self.now += timeout
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """The loop; `wire` is its network."""

    def __init__(self) -> None:
        self._leaping = _Leaping()
        super().__init__(self._leaping)
        self.wire: Wire | None = None
        self.set_task_factory(_make_task)

    def time(self) -> float:
        """Virtual seconds."""
        return self._leaping.now

    def call_later(  # type: ignore[override] # it takes what that takes, less exactly typed
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Let some time pass: who waits for less than the clock can tell would wait for ever."""
        some = max(delay, _SHORTEST_S) if delay > 0 else delay
        return super().call_later(some, callback, *args, context=context)

    @property
    def _network(self) -> Wire:
        if self.wire is None:
            raise RuntimeError("this loop has no network")
        return self.wire

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
        """Know addresses only: there are no names here."""
        address = (str(host), int(port))
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address)]

    async def sock_connect(self, sock: Any, address: Any) -> None:
        """Remember where this socket, which stays unconnected, is to lead."""
        await self._network.reach(sock, (address[0], address[1]))

    async def create_connection(self, protocol_factory: Any, *_: Any, **kwargs: Any) -> Any:
        """Connect over the simulated network; only for a socket of `sock_connect`."""
        return self._network.connect(protocol_factory, kwargs["sock"])

    async def create_server(
        self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any
    ) -> Any:
        """Listen on the simulated network."""
        return self._network.listen(protocol_factory, host or "127.0.0.1", port or 0)


def _make_task(
    loop: asyncio.AbstractEventLoop, coro: Any, context: Context | None = None
) -> asyncio.Task[Any]:
    return _Task(coro, loop=loop, context=context)


def run(main: Callable[[SimulatedLoop], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine on a simulated loop of its own."""
    loop = SimulatedLoop()
    # The pool of connections asks the machine's clock how long one was idle.
    cast("Any", aiohttp.connector).monotonic = loop.time
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main(loop))

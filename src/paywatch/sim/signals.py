"""Waiting for things to happen instead of sleeping: for tests, and for the simulator itself."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Signal:
    """Wakes everybody who waits; they look for themselves whether it was for them."""

    def __init__(self) -> None:
        self._waiters: dict[asyncio.Future[None], None] = {}  # in the order of their coming

    def notify(self) -> None:
        """Wake everybody."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait_for(self, condition: Callable[[], T | None]) -> T:
        """Wait until `condition()` is true, and give what it gave. Bound it by a time limit."""
        while not (found := condition()):
            waiter = asyncio.get_running_loop().create_future()
            self._waiters[waiter] = None
            try:
                await waiter
            finally:
                del self._waiters[waiter]
        return found


class EventLog(Generic[T]):
    """The last things that happened, and a way to wait for one that is to come.

    Args:
        size: how many are kept.
    """

    def __init__(self, size: int = 10_000) -> None:
        self._items: deque[T] = deque(maxlen=size)
        self._signal = Signal()
        self.total = 0

    def append(self, item: T) -> None:
        """Add an item and wake those who wait."""
        self._items.append(item)
        self.total += 1
        self._signal.notify()

    def changed(self) -> None:
        """Wake those who wait: something about an item is different now."""
        self._signal.notify()

    async def wait_for(self, wanted: Callable[[T], bool], count: int = 1) -> list[T]:
        """Wait until `count` of the kept items are wanted, and give them."""

        def enough() -> list[T] | None:
            found = [item for item in self._items if wanted(item)]
            return found if len(found) >= count else None

        return await self._signal.wait_for(enough)

    def clear(self) -> None:
        """Forget what is kept."""
        self._items.clear()

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._items))

    def __len__(self) -> int:
        return len(self._items)

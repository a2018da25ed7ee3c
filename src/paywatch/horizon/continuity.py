"""Whether an instance still serves the history that was read before: positions come again.

A test network is reset a few times a year: the same name, and ledgers from 1 on. Three signs, each
of which the others miss: a tip that is lower and later than one seen in this process; a tip far
below a stored position (`Root.require_history`); and another hash of a ledger that was seen in this
history, be it years ago and by another process: the landmark.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from paywatch.domain.ledger import History, Landmark
from paywatch.errors import HorizonUnavailable, NetworkReset
from paywatch.horizon.documents import Root

CHECK_S: Final = 3600.0  # between two looks at the landmark: a request each

ReadHistory = Callable[[], Awaitable[History]]
ReadHash = Callable[[int], Awaitable[str | None]]


async def first_history() -> History:
    """Give the history of who keeps none."""
    return History()


class Continuity:
    """Remembers what one instance has shown.

    Args:
        read_history: tells which history it is for us, and its landmark.
        read_hash: reads the hash of a ledger from the instance; None if it has it not.
        check_s: seconds between two looks at the landmark.
    """

    def __init__(
        self, read_history: ReadHistory, read_hash: ReadHash, check_s: float = CHECK_S
    ) -> None:
        self._read_history = read_history
        self._read_hash = read_hash
        self._check_s = check_s
        self._number: int | None = None  # of the history
        self._highest: Root | None = None
        self._checked_at: float | None = None  # the event loop's clock
        self._failure: HorizonUnavailable | None = None
        self._failed_at = 0.0  # the same
        self._lock = asyncio.Lock()

    async def require(self, root: Root) -> None:
        """Refuse an instance that serves another history than was read from before.

        An operator may have said meanwhile that another history has begun: then it is taken up.
        Streams share one look at the landmark, and its failure, as they do with the root document.

        Raises:
            NetworkReset: it is another one.
            HorizonUnavailable: that cannot be found out now.
        """
        clock = asyncio.get_running_loop().time
        came_at = clock()
        async with self._lock:
            if self._failure is not None and self._failed_at > came_at:
                failure = self._failure
                raise HorizonUnavailable(failure.reason, str(failure), failure.retry_after)
            try:
                await self._require_unless_begun(root)
            except HorizonUnavailable as failure:
                self._failure, self._failed_at = failure, clock()
                raise

    async def _require_unless_begun(self, root: Root) -> None:
        try:
            await self._require(root)
        except NetworkReset:
            if (await self._read_history()).number == self._number:
                raise
            self._highest = self._checked_at = None
            await self._require(root)

    async def _require(self, root: Root) -> None:
        if self._highest is not None:
            root.require_continuation_of(self._highest)
        now = asyncio.get_running_loop().time()
        if self._checked_at is None or now - self._checked_at > self._check_s:
            history = await self._read_history()
            self._number = history.number
            if history.landmark is None or await self._holds(history.landmark, root):
                self._checked_at = now
        if self._highest is None or root.latest > self._highest.latest:
            self._highest = root

    async def _holds(self, landmark: Landmark, root: Root) -> bool:
        """Compare a landmark; False if the instance may show it later, or does not answer for it.

        Raises:
            NetworkReset: it has another hash.
        """
        if not root.elder <= landmark.ledger <= root.latest:
            return landmark.ledger < root.elder
        found = await self._read_hash(landmark.ledger)
        if found is not None and found != landmark.hash:
            raise NetworkReset(
                f"ledger {landmark.ledger} is {found[:12]}…, and it was {landmark.hash[:12]}… when "
                "it was first read: the network began again, or this is another one"
            )
        return found is not None

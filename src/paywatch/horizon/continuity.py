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
        self._doubt: NetworkReset | None = None  # until the landmark proves it wrong
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
        except NetworkReset as doubt:
            # A new ledger that grows beyond the old one's tip must not look like the old one.
            self._doubt, self._checked_at = doubt, None
            if (await self._read_history()).number == self._number:
                raise
            await self._require(root)

    async def _require(self, root: Root) -> None:
        now = asyncio.get_running_loop().time()
        is_due = self._checked_at is None or now - self._checked_at > self._check_s
        history = await self._read_history() if is_due else None
        if history is not None and history.number != self._number:
            self._number, self._doubt, self._highest = history.number, None, None
        if self._highest is not None:
            root.require_continuation_of(self._highest)
        if history is not None:
            await self._compare(history.landmark, root, now)
        if self._highest is None or root.latest > self._highest.latest:
            self._highest = root

    async def _compare(self, landmark: Landmark | None, root: Root, now: float) -> None:
        holds = await self._holds(landmark, root)
        if self._doubt is not None and not holds:
            raise NetworkReset(str(self._doubt))
        self._doubt = None
        if holds or not _may_be_seen_later(landmark, root):
            self._checked_at = now

    async def _holds(self, landmark: Landmark | None, root: Root) -> bool:
        """Whether the instance has the landmark, hash for hash; False proves nothing.

        Raises:
            NetworkReset: it has another hash.
        """
        if landmark is None or not root.elder <= landmark.ledger <= root.latest:
            return False
        found = await self._read_hash(landmark.ledger)
        if found is not None and found != landmark.hash:
            raise NetworkReset(
                f"ledger {landmark.ledger} is {found[:12]}…, and it was {landmark.hash[:12]}… when "
                "it was first read: the network began again, or this is another one"
            )
        return found is not None


def _may_be_seen_later(landmark: Landmark | None, root: Root) -> bool:
    """Whether to look again soon, and not in an hour."""
    return landmark is not None and landmark.ledger >= root.elder

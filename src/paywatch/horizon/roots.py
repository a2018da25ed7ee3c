"""What one instance says of itself, read once for all who ask at the same time."""

import asyncio

from stellar_sdk.server_async import ServerAsync

from paywatch.errors import HorizonUnavailable
from paywatch.horizon.documents import Root
from paywatch.horizon.timing import Timing


class Roots:
    """The root documents of one instance.

    Streams share one request, and its failure: were each that waits to ask a Horizon that hangs in
    its turn, the last would wait for all the others' time limits.
    """

    def __init__(self, server: ServerAsync, passphrase: str, timing: Timing) -> None:
        self._server = server
        self._passphrase = passphrase
        self._max_age_s = timing.root_age_s
        self._lock = asyncio.Lock()
        self._read_at = 0.0  # the event loop's clock
        self._failure: HorizonUnavailable | None = None
        self._failed_at = 0.0  # the same
        self._highest: Root | None = None
        self.last: Root | None = None

    async def read(self) -> Root:
        """Read one, or give the last if it is not older than `root_age_s`.

        Raises:
            HorizonUnavailable: it cannot be read.
        """
        clock = asyncio.get_running_loop().time
        came_at = clock()
        async with self._lock:
            if self._failure is not None and self._failed_at > came_at:
                failure = self._failure
                raise HorizonUnavailable(failure.reason, str(failure), failure.retry_after)
            if self.last is None or clock() - self._read_at > self._max_age_s:
                asked_at = clock()
                try:
                    self.last = Root.parse(await self._server.root().call())
                except HorizonUnavailable as failure:
                    self._failure, self._failed_at = failure, clock()
                    raise
                self._read_at = asked_at
            return self.last

    def check(self, root: Root) -> Root:
        """Refuse a root of another network, or of another history than those before.

        Raises:
            WrongNetwork, NetworkReset: which of the two.
        """
        root.require_network(self._passphrase)
        if self._highest is not None:
            root.require_continuation_of(self._highest)
        if self._highest is None or root.latest > self._highest.latest:
            self._highest = root
        return root

"""What one instance says of itself, read once for all who ask at the same time."""

import asyncio
import re

from stellar_sdk.server_async import ServerAsync

from paywatch.errors import HorizonUnavailable
from paywatch.horizon.continuity import Continuity, ReadHistory, first_history
from paywatch.horizon.documents import Root
from paywatch.horizon.timing import Timing
from paywatch.horizon.transport import GONE, NOT_FOUND

_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Roots:
    """The root documents of one instance.

    Streams share one request, and its failure: were each that waits to ask a Horizon that hangs in
    its turn, the last would wait for all the others' time limits.
    """

    def __init__(
        self,
        server: ServerAsync,
        passphrase: str,
        timing: Timing,
        read_history: ReadHistory = first_history,
    ) -> None:
        self._server = server
        self._passphrase = passphrase
        self._max_age_s = timing.root_age_s
        self._lock = asyncio.Lock()
        self._read_at = 0.0  # the event loop's clock
        self._failure: HorizonUnavailable | None = None
        self._failed_at = 0.0  # the same
        self._continuity = Continuity(read_history, self.ledger_hash)
        self.last: Root | None = None

    async def read(self, *, anew: bool = False) -> Root:
        """Read one, or give the last if it is not older than `root_age_s`.

        Args:
            anew: give none that was asked for before this call.

        Raises:
            HorizonUnavailable: it cannot be read.
        """
        clock = asyncio.get_running_loop().time
        came_at = clock()
        oldest = came_at if anew else came_at - self._max_age_s
        async with self._lock:
            if self._failure is not None and self._failed_at > came_at:
                failure = self._failure
                raise HorizonUnavailable(failure.reason, str(failure), failure.retry_after)
            if self.last is None or self._read_at < oldest:
                asked_at = clock()
                try:
                    self.last = Root.parse(await self._server.root().call())
                except HorizonUnavailable as failure:
                    self._failure, self._failed_at = failure, clock()
                    raise
                self._read_at = asked_at
            return self.last

    async def check(self, root: Root) -> Root:
        """Refuse a root of another network, or of another history than was read before.

        Raises:
            WrongNetwork, NetworkReset: which of the two.
            HorizonUnavailable: that cannot be found out now.
        """
        root.require_network(self._passphrase)
        await self._continuity.require(root)
        return root

    async def ledger_hash(self, ledger: int) -> str | None:
        """Tell a ledger's hash, in hex; None if the instance has it no more or not yet.

        Raises:
            HorizonUnavailable: it cannot be read.
        """
        try:
            document = await self._server.ledgers().ledger(ledger).call()
        except HorizonUnavailable as error:
            if error.reason not in {NOT_FOUND, GONE}:
                raise
            return None
        found = document.get("hash")
        if not isinstance(found, str) or not _HASH.fullmatch(found):
            raise HorizonUnavailable("malformed", f"ledger {ledger}: hash: must be 64 hex digits")
        return found

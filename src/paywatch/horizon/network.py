"""Everybody's payments, read once and filtered here: one connection for any number of accounts.

By pages alone, one after the other while they are full, then every `poll_s`. Horizon ends a stream
after 200 records, which a busy network has in a second: a stream would be opened as often as a page
is asked for, and every record be read twice.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Container
from dataclasses import replace
from typing import Protocol

from paywatch.domain.ledger import Batch, Position
from paywatch.errors import HorizonUnavailable
from paywatch.horizon.claims import Claims
from paywatch.horizon.pages import Page
from paywatch.horizon.reconnects import Reconnects
from paywatch.horizon.timing import Timing


class _Source(Protocol):
    async def read_page(self, account: str | None, after: Position) -> Page: ...


class NetworkStream:
    """Reads the whole network for ever.

    Args:
        source: gives pages.
        watched: the accounts to keep the credits of; asked anew for each page, after it was read.
        after: the position to begin after.
        timing: `poll_s` and `overlap_s`.
        reconnects: waits after failures, and between two looks.
    """

    def __init__(
        self,
        source: _Source,
        watched: Callable[[], Container[str]],
        after: Position,
        timing: Timing,
        reconnects: Reconnects,
    ) -> None:
        self._source = source
        self._watched = watched
        self._timing = timing
        self._reconnects = reconnects
        self._claims = Claims(after, timing.overlap_s)

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """Yield a batch for each page, for ever; while Horizon is away, empty ones.

        Raises:
            HistoryGap, NetworkReset, WrongNetwork: it cannot go on here.
        """
        while True:
            began_at = asyncio.get_running_loop().time()
            after = self._claims.position
            try:
                page = await self._source.read_page(None, after)
                batch = page.batch(self._watched())
            except HorizonUnavailable as error:
                for pause_s in self._reconnects.pauses(error):
                    await self._reconnects.sleep(pause_s)
                    yield Batch((), after, after, None, 0)
                continue
            self._reconnects.succeeded()
            yield replace(batch, upto=self._claims.believe(page))
            if not page.is_full:
                took_s = asyncio.get_running_loop().time() - began_at
                await self._reconnects.sleep(max(0.0, self._timing.poll_s - took_s))

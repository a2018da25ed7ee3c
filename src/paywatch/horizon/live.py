"""The live stream of one account, confirmed by pages.

Only pages prove anything. A stream can skip a record (it was ingested late, a proxy lost an event)
and deliver a later one, and nothing in it shows the hole. So a stream's records are handed out at
once, but **early**: in batches that leave the position where the last page put it. Every
`reconcile_s`, and whenever a connection has ended, a page is read from that position on: it yields
what the stream did not bring, and moves the position. The consequences:

- A batch's `after` is always the `upto` of the one before; `upto` moves only on what a page showed.
- An empty page shows nothing: it says that there is nothing up to the tip, and the position follows
  only when pages have said so for `overlap_s`.
- An early batch has `after == upto`, and no `closed_at`: its records lie *beyond* its position.
  The page that confirms them does not yield them again. A process that dies in between reads them
  again after its start, and the settling finds them settled: credits have an identity.
- A record that the stream skipped is late, never lost, not even by a crash right after.
- While Horizon cannot be read, an empty batch comes after each pause: the reader is at work, and
  nobody must end it for its silence.
- No deadline is judged by the ledger's clock before a page has shown what was closed until then.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any, Final, Protocol

from paywatch.domain.ledger import Batch, Position
from paywatch.errors import HorizonUnavailable
from paywatch.horizon.arrivals import Arrivals
from paywatch.horizon.claims import Claims
from paywatch.horizon.pages import Page, place
from paywatch.horizon.reconnects import Reconnects
from paywatch.horizon.records import parse_record
from paywatch.horizon.timing import Timing

MAX_UNCONFIRMED: Final = 1000  # Horizon ends a stream after 200; a server that does not is bounded


class _Source(Protocol):
    async def read_page(self, account: str, after: Position) -> Page: ...

    def connect(self, account: str, after: Position) -> Arrivals: ...


class AccountStream:
    """Reads one account for ever."""

    def __init__(
        self, source: _Source, account: str, after: Position, timing: Timing, reconnects: Reconnects
    ) -> None:
        self._source = source
        self._account = account
        self._timing = timing
        self._reconnects = reconnects
        self._claims = Claims(after, timing.overlap_s)
        self._early: set[Position] = set()  # handed out, but not confirmed yet
        self._streamed = after  # the last position on the connection
        self._arrivals: Arrivals | None = None
        self._reconcile_at = 0.0  # the event loop's clock
        self._unfunded = False

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """Yield batches for ever; close it with `contextlib.aclosing`.

        Raises:
            HistoryGap, NetworkReset, WrongNetwork: it cannot go on here.
        """
        try:
            while True:
                try:
                    batch = await self._next()
                except HorizonUnavailable as error:
                    await self._disconnect()
                    for pause_s in self._reconnects.pauses(error):
                        await self._reconnects.sleep(pause_s)
                        yield Batch((), self._confirmed, self._confirmed, None, 0)
                    continue
                if batch is not None:
                    yield batch
        finally:
            await self._disconnect()

    @property
    def _confirmed(self) -> Position:
        """The position that pages have moved to."""
        return self._claims.position

    async def _next(self) -> Batch | None:
        clock = asyncio.get_running_loop().time
        if self._unfunded:  # it has no stream: what funds it is found by a page
            await self._reconnects.sleep(max(0.0, self._reconcile_at - clock()))
        if self._arrivals is None or clock() >= self._reconcile_at:
            return await self._reconcile()
        if len(self._early) >= MAX_UNCONFIRMED:
            raise HorizonUnavailable("behind", "the stream is too far ahead of the pages")
        arrived = await self._arrivals.take(self._reconcile_at)
        return self._early_batch(arrived) if arrived else None

    async def _reconcile(self) -> Batch:
        """Read a page from the last confirmed position; on the last one, open the stream."""
        page = await self._source.read_page(self._account, self._confirmed)
        self._require_all_early(page)
        batch = page.batch({self._account}, known=self._early)
        batch = replace(batch, upto=self._claims.believe(page))
        self._early = {position for position in self._early if position > page.upto}
        self._unfunded = page.unfunded
        if self._arrivals is not None or page.records or page.unfunded:
            self._reconnects.succeeded()
        if not page.is_full:
            self._reconcile_at = asyncio.get_running_loop().time() + self._timing.reconcile_s
            if self._arrivals is None and not page.unfunded:
                self._streamed = self._confirmed
                self._arrivals = self._source.connect(self._account, self._confirmed)
        return batch

    def _require_all_early(self, page: Page) -> None:
        """Refuse a page that does not know what the stream has shown: an instance that lags.

        Behind a load balancer it may be another one than told us the tip; believing its page
        would move the position past what it does not have yet.
        """
        known = {position for position, _ in page.records}
        if any(position <= page.upto and position not in known for position in self._early):
            raise HorizonUnavailable("behind", "a page lacks what the stream has shown")

    def _early_batch(self, arrived: list[dict[str, Any]]) -> Batch | None:
        # Placed before anything is noted: one without a place must not take the others with it.
        placed = [(place(raw), raw) for raw in arrived]
        records, read = [], 0
        for position, raw in placed:
            if position <= max(self._streamed, self._confirmed) or position in self._early:
                continue  # a replay
            self._streamed = position
            parsed = parse_record(raw, {self._account})
            if parsed is not None and parsed.problem is not None:
                continue  # only a page may say that a record cannot be read
            self._early.add(position)
            read += 1
            if parsed is not None:
                records.append(parsed)
        if read:
            self._reconnects.succeeded()
        if not records:
            return None
        return Batch(tuple(records), self._confirmed, self._confirmed, None, read)

    async def _disconnect(self) -> None:
        arrivals, self._arrivals = self._arrivals, None
        if arrivals is not None:
            await arrivals.close()

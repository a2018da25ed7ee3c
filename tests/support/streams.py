"""A live Horizon for the listener: a ledger that grows, breaks and heals as the test says."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

from paywatch.domain.ledger import Batch, Credit, Position
from paywatch.service.follow import Follower
from paywatch.service.network import NetworkReader
from paywatch.service.settle import Order, Settled, Settler
from support import batch_of, make_batch


def never_read(follower: Follower) -> NetworkReader:
    """The network-wide reader of a listener that has few accounts: nothing may come of it."""
    nothing: Any = None
    return NetworkReader(follower, nothing, nothing)


@dataclass
class Streams:
    """Streams what is on the ledger, and goes on as it grows.

    Attributes:
        errors: what the stream of an account raises instead of its next batch.
        quiet: accounts whose cursor is moved to that position although nothing happens.
        opened: by account and position, in order.
        open: how many streams are open now.
    """

    size: int = 200
    errors: dict[str, Exception] = field(default_factory=dict)
    quiet: dict[str, Position] = field(default_factory=dict)
    opened: list[tuple[str, Position]] = field(default_factory=list)
    open: int = 0
    _credits: list[Credit] = field(default_factory=list)
    _settled: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def grow(self, *credits_: Credit) -> None:
        """Close a ledger with these credits; without any, let a change of the fields be seen."""
        self._credits += credits_
        await self._tell()

    def heard(self, settler: Settler) -> Settler:
        """The same, whose settled batches `settled` waits for."""
        return _Heard(**vars(settler), inner=settler, streams=self)

    async def note_settled(self, account: str, upto: int) -> None:
        """Remember how far an account is settled."""
        self._settled[account] = upto
        await self._tell()

    async def settled(self, account: str, upto: int) -> None:
        """Wait until a follower of that account, by a settler that is heard, has got that far."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._settled[account] >= upto)

    async def opens(self, times: int) -> None:
        """Wait until that many streams have been opened, whatever became of them."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.opened) >= times)

    async def batches(self, account: str, after: Position) -> AsyncGenerator[Batch, None]:
        self.opened.append((account, after))
        self.open += 1
        try:
            while True:
                batch = await self._next(account, after)
                yield batch
                after = batch.upto
        finally:
            self.open -= 1

    async def _next(self, account: str, after: Position) -> Batch:
        await self._tell()
        async with self._changed:
            while True:
                if account in self.errors:
                    raise self.errors[account]
                if new := [c for c in self._credits if c.account == account and c.key > (after, 0)]:
                    return make_batch(new[: self.size], after)
                if self.quiet.get(account, after) > after:
                    return batch_of([], after, self.quiet[account])
                await self._changed.wait()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@dataclass(frozen=True)
class _Heard(Settler):
    """Settles by another one, and tells when a batch of a live stream is settled."""

    inner: Settler = field(kw_only=True)
    streams: Streams = field(kw_only=True)

    async def settle(
        self,
        order: Order,
        at_work: Callable[[], None] = lambda: None,
        stop: asyncio.Event | None = None,
    ) -> Settled:
        settled = await self.inner.settle(order, at_work, stop)
        if order.claim is not None and order.claim.account is not None:
            await self.streams.note_settled(order.claim.account, order.batch.upto)
        return settled

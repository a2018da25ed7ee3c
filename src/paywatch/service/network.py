"""The network-wide stream: whom it looks for, and for whom its position counts already.

Whoever is watched is looked for, from the next page on. But a page that was read before does not
have him; so his own cursor goes on to count for him until the ledger has been read for him up to
the place from which on he is looked for. Then he joins: his sessions expire by this stream's clock,
and new ones begin at its position.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Container, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from paywatch.domain.ledger import Batch, Position
from paywatch.errors import CursorMoved, HorizonError, NotFound
from paywatch.service.backfill import Backfill
from paywatch.service.follow import Follower, Stream
from paywatch.service.settle import Order
from paywatch.service.waiting import unless, wait_for
from paywatch.store import merchants, network
from paywatch.store.cursors import NETWORK_STREAM, Cursor
from paywatch.store.retry import in_transaction

log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

BY: Final = "join:network"
NEAR_LEDGERS: Final = 720  # an hour: within it, reading everybody's ledgers again is cheap


class NetworkSource(Protocol):
    """Reads everybody's operations without end."""

    def network_batches(
        self, watched: Callable[[], Container[str]], after: Position
    ) -> AsyncGenerator[Batch, None]:
        """Yield what comes after a position, as `Stream.batches` must.

        Args:
            watched: whose credits to keep; asked for each page, after it was asked for.
            after: exclusive.
        """
        ...


@dataclass
class NetworkReader:
    """The network-wide stream of one process.

    Attributes:
        follower: follows it, if it leads.
        source: reads it.
        backfill: brings accounts near that are far behind.
    """

    follower: Follower
    source: NetworkSource
    backfill: Backfill
    _watched: frozenset[str] = field(default=frozenset(), init=False)
    _claim: Cursor | None = field(default=None, init=False)  # while we lead
    _since: dict[str, Position] = field(default_factory=dict, init=False)
    _tries: Counter[str] = field(default_factory=Counter, init=False)

    @property
    def stream(self) -> Stream:
        """What is to be followed."""
        return Stream(NETWORK_STREAM, "network", self._batches)

    def watch(self, accounts: Iterable[str]) -> None:
        """Look for these accounts too, from the next page on; nobody is ever forgotten."""
        if new := set(accounts) - self._watched:
            self._watched |= new

    async def open(self) -> None:
        """Make the stream's cursor, unless it reads for somebody already."""
        await self._in_transaction(lambda conn: network.open_network(conn, self.follower.clock()))

    async def leave(self) -> None:
        """Give every account its own cursor back."""
        left = await self._in_transaction(lambda conn: network.leave(conn, self.follower.clock()))
        if left:
            log.info("accounts_left_the_network_stream", accounts=left)

    async def _batches(self, claim: Cursor) -> AsyncGenerator[Batch, None]:
        """Read on from a claim, noting from where on each account is looked for."""
        # After the claim: whoever joined under an earlier leader must be looked for by this one.
        accounts = await self._in_transaction(merchants.read_accounts)
        self.watch(one.account for one in accounts)
        since: dict[str, Position] = {}
        self._claim, self._since, noted = claim, since, frozenset[str]()
        batches = self.source.network_batches(lambda: self._watched, claim.position)
        try:
            async with aclosing(batches):
                while True:
                    watched = self._watched
                    batch = await anext(batches)
                    if watched is not noted:
                        since |= dict.fromkeys(watched - since.keys(), batch.after)
                        noted = watched
                    yield batch
        finally:
            if self._claim is claim:  # not a later one's: what was cut off may end late
                self._claim, self._since = None, {}

    async def keep_joining(self, stop: asyncio.Event) -> None:
        """Let accounts join while we lead, until `stop` is set."""
        while not stop.is_set():
            try:
                await unless(stop, self.join_some())
            except (HorizonError, CursorMoved, NotFound) as error:
                # Moved or gone: another process finishes our backfill, as each does at its start.
                log.warning("join_waits", why=str(error))
            await wait_for(stop, self.follower.timing.accounts_s)

    async def join_some(self) -> set[str]:
        """Read the ledger for some that have not joined up to where the stream looks for them.

        Raises:
            HorizonError: it cannot be read; they are tried again after the others.
            CursorMoved, NotFound: another process has taken a backfill over.
        """
        claim = self._claim
        waiting = await self._in_transaction(network.read_waiting)
        group = self._next_group({a: at for a, at in waiting.items() if a in self._since})
        if claim is None or not group:
            return set()
        self._tries.update(group.keys())
        upto = max(self._since[account] for account in group)
        if upto.ledger - min(group.values()).ledger <= NEAR_LEDGERS:
            await self._read_for(group, upto, claim)
        else:
            for account, after in group.items():
                await self.backfill.run_range(account, after, max(after, upto))

        if self._claim is not claim:  # not read to its end, and its epoch may still be the last
            return set()
        joined = await self._in_transaction(
            lambda conn: network.join(conn, group.keys(), claim.epoch)
        )
        for account in joined:
            del self._tries[account]
        if joined:
            log.info("accounts_joined_the_network_stream", accounts=len(joined), of=len(group))
        return joined

    def _next_group(self, waiting: Mapping[str, Position]) -> Mapping[str, Position]:
        """Choose who is to join next: the least tried, the nearest, and all that are near them.

        One that is far behind, or not on the ledger at all, holds up nobody else.
        """
        if not waiting:
            return {}
        fewest = min(self._tries[account] for account in waiting)
        eager = {a: at for a, at in waiting.items() if self._tries[a] == fewest}
        nearest = max(eager.values()).ledger
        return {a: at for a, at in eager.items() if nearest - at.ledger <= NEAR_LEDGERS}

    async def _read_for(self, group: Mapping[str, Position], upto: Position, claim: Cursor) -> None:
        """Read the network again for a group, and settle what it brings; it moves no cursor.

        It ends early when we lead by `claim` no more.
        """
        after = min(group.values())
        if after >= upto:
            return
        settler = self.follower.settler
        history = await settler.history()
        async with aclosing(self.source.network_batches(lambda: group, after)) as batches:
            async for batch in batches:
                if batch.records:
                    await settler.settle(Order(batch, by=BY, history=history))
                if batch.upto >= upto or self._claim is not claim:
                    return

    async def _in_transaction(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        return await in_transaction(self.follower.engine, work, rng=self.follower.rng)

"""Listen: follow the ledger for every watched account, and settle what it brings.

By a stream for each account while they are few, by one network-wide stream when they are many; the
change from one to the other loses nothing (`service/network.py`).
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from paywatch.domain.ledger import Batch, Position
from paywatch.service.follow import Follower, Stream
from paywatch.service.network import NetworkReader
from paywatch.service.waiting import unless, wait_for
from paywatch.store import merchants
from paywatch.store.cursors import Cursor, live_stream
from paywatch.store.merchants import WatchedAccount
from paywatch.store.retry import in_transaction

log = structlog.stdlib.get_logger(__name__)


class LiveSource(Protocol):
    """Reads an account's operations without end."""

    def batches(self, account: str, after: Position) -> AsyncGenerator[Batch, None]:
        """Yield what comes after a position, as `Stream.batches` must."""
        ...


@dataclass(frozen=True)
class Listener:
    """Follows all watched accounts.

    Attributes:
        follower: follows one stream.
        source: of the accounts' own streams.
        network: the network-wide stream.
        most_streams: with more accounts than this, the network is read as a whole; None: never.
    """

    follower: Follower
    source: LiveSource
    network: NetworkReader
    most_streams: int | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Follow every account until `stop` is set; accounts added meanwhile are taken up."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.follower.election.run(stop), name="election")
            while (accounts := await self._accounts(stop)) is not None:
                if self.wants_network(accounts):
                    await self._follow_network(stop)
                else:
                    await self._follow_each(stop)

    def wants_network(self, accounts: Sequence[WatchedAccount]) -> bool:
        """Choose how these accounts are read.

        Once it is network-wide it stays so until they are half as many: a number at the bound must
        not go back and forth.
        """
        if self.most_streams is None:
            return False
        is_network = any(account.by_network for account in accounts)
        return len(accounts) > (self.most_streams // 2 if is_network else self.most_streams)

    async def _follow_each(self, stop: asyncio.Event) -> None:
        """Follow each account's own stream, one task for each."""
        await unless(stop, self.network.leave())
        ended, followed = asyncio.Event(), set[str]()
        async with asyncio.TaskGroup() as streams:
            while (accounts := await self._accounts(stop)) is not None:
                if self.wants_network(accounts):
                    log.info("listening_to_the_network", accounts=len(accounts))
                    break
                for account in sorted({watched.account for watched in accounts} - followed):
                    followed.add(account)
                    following = self.follower.keep_following(self._stream(account), ended)
                    streams.create_task(following, name=account)
                await wait_for(stop, self.follower.timing.accounts_s)
            ended.set()

    def _stream(self, account: str) -> Stream:
        def batches(claim: Cursor) -> AsyncGenerator[Batch, None]:
            return self.source.batches(account, claim.position)

        return Stream(live_stream(account), account, batches)

    async def _follow_network(self, stop: asyncio.Event) -> None:
        """Follow the network-wide stream, and let the accounts join it."""
        await unless(stop, self.network.open())
        ended = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.follower.keep_following(self.network.stream, ended))
            tasks.create_task(self.network.keep_joining(ended))
            while (accounts := await self._accounts(stop)) is not None:
                if not self.wants_network(accounts):
                    log.info("listening_to_each_account", accounts=len(accounts))
                    break
                self.network.watch(watched.account for watched in accounts)
                await wait_for(stop, self.follower.timing.accounts_s)
            ended.set()

    async def _accounts(self, stop: asyncio.Event) -> list[WatchedAccount] | None:
        """Read the watched accounts; None if `stop` is set."""
        reading = in_transaction(
            self.follower.engine, merchants.read_accounts, rng=self.follower.rng
        )
        found = await unless(stop, reading)
        return None if stop.is_set() else found

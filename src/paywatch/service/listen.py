"""Listen: follow the live stream of every watched account, and settle what it brings."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from paywatch.domain.ledger import Batch, Position
from paywatch.service.follow import Follower, Stream
from paywatch.service.waiting import unless, wait_for
from paywatch.store import merchants
from paywatch.store.cursors import live_stream
from paywatch.store.retry import persistently


class LiveSource(Protocol):
    """Reads an account's operations without end."""

    def batches(self, account: str, after: Position) -> AsyncGenerator[Batch, None]:
        """Yield what comes after a position, as `Stream.batches` must."""
        ...


@dataclass(frozen=True)
class Listener:
    """Follows all watched accounts, one task for each."""

    follower: Follower
    source: LiveSource

    async def run(self, stop: asyncio.Event) -> None:
        """Follow every account until `stop` is set; accounts added meanwhile are taken up."""
        async with asyncio.TaskGroup() as streams:
            streams.create_task(self.follower.election.run(stop), name="election")
            followed: set[str] = set()
            while not stop.is_set():
                for account in sorted(set(await unless(stop, self._accounts()) or ()) - followed):
                    followed.add(account)
                    stream = Stream(
                        live_stream(account), account, partial(self.source.batches, account)
                    )
                    following = self.follower.keep_following(stream, stop)
                    streams.create_task(following, name=account)
                await wait_for(stop, self.follower.timing.accounts_s)

    async def _accounts(self) -> list[str]:
        async def read() -> list[str]:
            async with self.follower.engine.begin() as conn:
                return [watched.account for watched in await merchants.read_accounts(conn)]

        return await persistently(read, rng=self.follower.rng)

"""Listen: follow the live stream of every watched account, and settle what it brings."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any, Protocol

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from paywatch.domain.ledger import Batch, Position
from paywatch.errors import CursorMoved, HorizonError, NotFound
from paywatch.service.settle import Order, Settler
from paywatch.service.waiting import wait_for
from paywatch.store import cursors, merchants
from paywatch.store.cursors import Cursor, live_stream
from paywatch.store.retry import persistently
from paywatch.telemetry import Metrics, Progress

log = structlog.stdlib.get_logger(__name__)


class LiveSource(Protocol):
    """Reads an account's operations without end."""

    def batches(self, account: str, after: Position) -> AsyncGenerator[Batch, None]:
        """Yield what comes after a position, in ledger order, each batch from the last one's end.

        While nothing can be read, empty batches come: the reader is at work.

        Survives whatever Horizon does by itself; raises HistoryGap, NetworkReset or WrongNetwork
        where going on would lose money.
        """
        ...


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the listener waits, in seconds."""

    accounts_s: float = 2.0  # between two looks for new accounts
    standby_s: float = 45.0  # a leader that moved nothing for so long is gone
    stopped_s: float = 60.0  # between two tries of a stream that may not go on
    allowance_s: float = 120.0  # a stream without progress for so long is stuck


@dataclass(frozen=True)
class Listener:
    """Follows all watched accounts, one task for each."""

    engine: AsyncEngine
    settler: Settler
    source: LiveSource
    clock: Callable[[], datetime]
    rng: Random
    metrics: Metrics
    progress: Progress
    timing: Timing = Timing()

    async def run(self, stop: asyncio.Event) -> None:
        """Follow every account until `stop` is set; accounts added meanwhile are taken up."""
        async with asyncio.TaskGroup() as streams:
            followed: set[str] = set()
            while not stop.is_set():
                for account in sorted(set(await self._accounts()) - followed):
                    followed.add(account)
                    streams.create_task(self.keep_following(account, stop), name=account)
                await wait_for(stop, self.timing.accounts_s)

    async def _accounts(self) -> list[str]:
        async def read() -> list[str]:
            async with self.engine.begin() as conn:
                return [watched.account for watched in await merchants.read_accounts(conn)]

        return await persistently(read, rng=self.rng)

    async def keep_following(self, account: str, stop: asyncio.Event) -> None:
        """Follow one account; stand by while another instance does."""
        name = f"listen:{account}"
        self.progress.watch(name, timedelta(seconds=self.timing.allowance_s), self.clock())
        while not stop.is_set():
            try:
                await self.follow(account, stop)
            except CursorMoved as moved:
                log.warning("standing_by", account=account, why=str(moved))
                self._state(account, "standby")
                await self._stand_by(account, stop)
            except HorizonError as error:
                # Going on would lose money, and so would forgetting: say it, and look again.
                log.error("stream_stopped", account=account, error=str(error))  # noqa: TRY400 # no bug of ours to trace
                self._state(account, "stopped")
                await wait_for(stop, self.timing.stopped_s)
                self._beat(account)
        self.progress.forget(name)

    async def follow(self, account: str, stop: asyncio.Event) -> None:
        """Take the stream over and settle its batches until `stop` is set.

        A batch that was begun is finished before it returns.

        Raises:
            CursorMoved: another instance took the stream over.
            HistoryGap, NetworkReset, WrongNetwork: the stream may not go on.
        """
        claim = await self._claim(account)
        self._state(account, "catching_up")
        async with aclosing(until(stop, self.source.batches(account, claim.position))) as batches:
            async for batch in batches:
                order = Order(batch, by=claim.stream, claim=claim)
                await self.settler.settle(order, lambda: self._beat(account))
                self._moved(account, batch)

    async def _claim(self, account: str) -> Cursor:
        async def take() -> Cursor | None:
            async with self.engine.begin() as conn:
                return await cursors.claim(conn, live_stream(account), self.clock())

        claim = await self._persistently(account, take)
        if claim is None:
            raise NotFound(f"there is no cursor for the live stream of {account}")
        return claim

    async def _stand_by(self, account: str, stop: asyncio.Event) -> None:
        """Return when the leader has moved nothing for a while, or at `stop`."""

        async def read() -> Cursor | None:
            async with self.engine.begin() as conn:
                return await cursors.read(conn, live_stream(account))

        before = await self._persistently(account, read)
        while not stop.is_set():
            await wait_for(stop, self.timing.standby_s)
            self._beat(account)
            now_at = await self._persistently(account, read)
            if now_at == before:
                return
            before = now_at

    async def _persistently(
        self, account: str, run: Callable[[], Awaitable[Cursor | None]]
    ) -> Cursor | None:
        """Run a transaction; a listener that waits for the database has not hung."""
        return await persistently(run, rng=self.rng, on_retry=lambda _: self._beat(account))

    def _beat(self, account: str) -> None:
        self.progress.beat(f"listen:{account}", self.clock())

    def _moved(self, account: str, batch: Batch) -> None:
        self._beat(account)
        self._state(account, "retrying" if batch.says_nothing else "live")
        self.metrics.position_ledger.labels(stream=account).set(batch.upto.ledger)
        if batch.closed_at is not None:
            lag = (self.clock() - batch.closed_at).total_seconds()
            self.metrics.clock_lag_seconds.labels(stream=account).set(lag)

    def _state(self, account: str, state: str) -> None:
        self.metrics.stream_state.labels(stream=account).state(state)


async def until(
    stop: asyncio.Event, batches: AsyncGenerator[Batch, None]
) -> AsyncGenerator[Batch, None]:
    """Yield from `batches` until `stop` is set: then the wait for the next one is cut off."""
    stopping = asyncio.ensure_future(stop.wait())
    tasks: list[asyncio.Future[Any]] = [stopping]
    try:
        while True:
            coming = asyncio.ensure_future(anext(batches))
            tasks[1:] = [coming]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                return
            yield coming.result()
    except StopAsyncIteration:
        return
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await batches.aclose()

"""Waiting that a graceful stop cuts short."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")


async def wait_for(stop: asyncio.Event, seconds: float) -> None:
    """Wait some seconds, or less if `stop` is set."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


@asynccontextmanager
async def either(*events: asyncio.Event) -> AsyncIterator[asyncio.Event]:
    """Give an event that is set as soon as one of these is."""
    one = asyncio.Event()

    async def pass_on(event: asyncio.Event) -> None:
        await event.wait()
        one.set()

    tasks = [asyncio.create_task(pass_on(event)) for event in events]
    try:
        yield one
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def unless(stop: asyncio.Event, work: Awaitable[T]) -> T | None:
    """Await some work; None if `stop` was set first, which cuts it off."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        working.cancel()
        stopping.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)

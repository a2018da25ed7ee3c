"""Waiting that a graceful stop cuts short."""

import asyncio


async def wait_for(stop: asyncio.Event, seconds: float) -> None:
    """Wait some seconds, or less if `stop` is set."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return

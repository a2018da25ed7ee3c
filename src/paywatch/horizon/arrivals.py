"""What has arrived on one streaming connection, read ahead within a bound."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from paywatch.errors import HorizonUnavailable
from paywatch.horizon.reconnects import CLOSED

Raw = dict[str, Any]


class Arrivals:
    """Reads a connection in a task of its own, so that records gather while others are settled.

    The queue is bounded: a slow reader stops the task, and the socket's window stops Horizon.

    Args:
        stream: the transport's stream; closed with this.
        limit: the most records to read ahead, and to hand out at once.
    """

    def __init__(self, stream: AsyncGenerator[Raw, None], limit: int) -> None:
        self._queue: asyncio.Queue[Raw | Exception] = asyncio.Queue(limit)
        self._limit = limit
        self._end: Exception | None = None
        self._task = asyncio.create_task(self._pump(stream), name="horizon stream")

    async def take(self, until: float) -> list[Raw]:
        """Give what has arrived; wait for the first record until `until` on the loop's clock.

        Nothing waits for company: what is here goes at once. While it is settled, the first that
        comes makes the next batch, and what comes after that the one behind. Empty at the time
        limit.

        Raises:
            HorizonUnavailable: the connection has ended and all its records were handed out.
        """
        if self._end is not None:
            raise self._end
        try:
            async with asyncio.timeout_at(until):
                first = await self._queue.get()
        except TimeoutError:
            return []
        if isinstance(first, Exception):
            raise first
        records = [first]
        while len(records) < self._limit and not self._queue.empty():
            arrived = self._queue.get_nowait()
            if isinstance(arrived, Exception):
                self._end = arrived
                break
            records.append(arrived)
        return records

    def end(self) -> None:
        """End it as Horizon would by a goodbye: what has not been handed out, a page will bring."""
        self._task.cancel()
        self._end = HorizonUnavailable(CLOSED, "another Horizon is read from now on")

    async def close(self) -> None:
        """Close the connection."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _pump(self, stream: AsyncGenerator[Raw, None]) -> None:
        try:
            async with aclosing(stream):
                async for record in stream:
                    await self._queue.put(record)
        except Exception as error:  # noqa: BLE001 - whatever it is, the reader must raise it
            await self._queue.put(error)
        else:
            await self._queue.put(HorizonUnavailable(CLOSED, "Horizon closed the stream"))

"""Reading ahead: the next batch is read while the last one is settled, and never more than that.

The order stays: a batch is handed over when the one before it has been worked on. Whoever breaks
off loses only what was read and not settled, which no cursor has passed.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from paywatch.domain.ledger import Batch


async def read_ahead(
    batches: AsyncGenerator[Batch, None], stop: asyncio.Event
) -> AsyncGenerator[Batch, None]:
    """Yield from `batches`, asking for the next one before the caller has the last.

    What the reading raises is raised when the batches before it have been worked on.

    Args:
        batches: closed behind the last one, whatever ends it.
        stop: once it is set, a wait is cut off, and nothing more is handed over.
    """
    stopping = asyncio.ensure_future(stop.wait())
    tasks: list[asyncio.Future[Any]] = [stopping, asyncio.ensure_future(anext(batches))]
    try:
        while True:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                return
            batch = tasks.pop().result()
            tasks.append(asyncio.ensure_future(anext(batches)))
            yield batch
    except StopAsyncIteration:
        return
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await batches.aclose()

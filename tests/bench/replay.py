"""`python -m bench.replay FILE`: a Horizon of one recorded ledger, in a process of its own.

Its URL is printed once it listens. Pages are sent as they were recorded; a stream is hello, as many
transactions as its limit, and goodbye, as Horizon's are: ten, unless asked for another number.
"""

import asyncio
import sys
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

from bench.far_end import listen, started
from bench.ledger import Recorded

HELLO = b'retry: 1000\nevent: open\ndata: "hello"\n\n'
GOODBYE = b'retry: 10\nevent: close\ndata: "byebye"\n\n'
HAL = {"Content-Type": "application/hal+json; charset=utf-8"}
STREAM = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
STREAM_LIMIT = 10


class Replay:
    """The answers to all requests that readers of one account make."""

    def __init__(self, ledger: Recorded) -> None:
        self._ledger = ledger
        self._path = f"/accounts/{ledger.account}"
        self._end = [*ledger.pages.values()][-1]  # an empty page
        self._tokens = [int(token) for token, _ in ledger.transactions]
        self._events = [
            b"id: " + token.encode() + b"\ndata: " + body + b"\n\n"
            for token, body in ledger.transactions
        ]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer whatever is known; anything else is an error of the benchmark."""
        if "text/event-stream" in request.headers.get("Accept", ""):
            return await self._stream(request)
        if request.path == f"{self._path}/payments":
            body = self._ledger.pages.get(request.query["cursor"], self._end)
        else:
            body = self._ledger.documents[request.path]
        return web.Response(body=body, headers=HAL)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=STREAM)
        await response.prepare(request)
        await response.write(HELLO)
        async for event in self._following(request):
            await response.write(event)
        await response.write(GOODBYE)
        return response

    async def _following(self, request: web.Request) -> AsyncIterator[bytes]:
        if request.path != f"{self._path}/transactions":
            await asyncio.Event().wait()  # the recorded payments are all in pages
        cursor = request.headers.get("Last-Event-ID") or request.query["cursor"]
        first = bisect_right(self._tokens, int(cursor))
        found = self._events[first : first + int(request.query.get("limit", STREAM_LIMIT))]
        for event in found:
            yield event
        if not found:
            await asyncio.Event().wait()  # nothing more will happen


async def serve(ledger: Recorded) -> None:
    """Listen until cancelled."""
    await listen(Replay(ledger).answer)
    await asyncio.Event().wait()


@contextmanager
def replaying(file: Path) -> Iterator[str]:
    """Serve a recorded ledger from another process; gives the URL."""
    with started("bench.replay", file) as horizon:
        yield horizon.heard()


if __name__ == "__main__":
    asyncio.run(serve(Recorded.load(Path(sys.argv[1]))))

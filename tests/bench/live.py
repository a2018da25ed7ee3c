"""`python -m bench.live FILE BURST EVERY_S`: a Horizon whose ledger goes on, in its own process.

Its URL is printed once it listens. A second after a stream was opened, BURST of the recorded
payments are shown every EVERY_S seconds, each on pages from then on and on the open stream. At the
end the moment of each is printed as JSON, in seconds of the machine's monotonic clock: right before
its bytes were written, or would have been if a stream had been open. A stream ends after as many
records as its limit, as Horizon's do.
"""

import asyncio
import json
import sys
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from bench.far_end import FarEnd, listen, say, started
from bench.ledger import Recorded
from bench.replay import GOODBYE, HAL, HELLO, STREAM

_PAGE = b'{"_links":{},"_embedded":{"records":[%b]}}'
_NOT_FOUND = {"Content-Type": "application/problem+json; charset=utf-8"}


class Live:
    """Horizon's answers about one account, as far as its payments have been shown."""

    def __init__(self, ledger: Recorded) -> None:
        self._documents = ledger.documents
        self._root: dict[str, Any] = json.loads(ledger.documents["/"])
        pages = [json.loads(body)["_embedded"]["records"] for body in ledger.pages.values()]
        records = [record for page in pages for record in page]
        self._records = [json.dumps(record, separators=(",", ":")).encode() for record in records]
        self._tokens = [int(record["paging_token"]) for record in records]
        self._closed_at = [record["created_at"] for record in records]
        self._begin, self._begun_at = ledger.begin.ledger - 1, records[0]["created_at"]
        self._account = f"/accounts/{ledger.account}"
        self._changed = asyncio.Condition()
        self.opened = asyncio.Event()
        self.shown_at: list[float] = []

    async def show(self, burst: int, every_s: float) -> None:
        """Show one burst after the other, each at its time."""
        began = time.monotonic()
        for number, _ in enumerate(range(0, len(self._records), burst)):
            await asyncio.sleep(began + number * every_s - time.monotonic())
            async with self._changed:
                left = len(self._records) - len(self.shown_at)
                self.shown_at += [time.monotonic()] * min(burst, left)
                self._changed.notify_all()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer what a listener asks; of anything else nothing is known."""
        if "text/event-stream" in request.headers.get("Accept", ""):
            return await self._stream(request)
        if request.path == "/":
            return web.Response(body=self._root_now(), headers=HAL)
        if request.path == f"{self._account}/payments":
            found = self._after(int(request.query["cursor"]), int(request.query["limit"]))
            body = _PAGE % b",".join(self._records[number] for number in found)
            return web.Response(body=body, headers=HAL)
        if request.path in self._documents:
            return web.Response(body=self._documents[request.path], headers=HAL)
        return web.Response(status=404, body=b'{"status":404}', headers=_NOT_FOUND)

    def _after(self, position: int, limit: int) -> range:
        """The numbers, from 0, of those behind a position that have been shown."""
        first = bisect_right(self._tokens, position)
        return range(first, min(first + limit, len(self.shown_at)))

    def _root_now(self) -> bytes:
        shown = len(self.shown_at)
        latest = self._tokens[shown - 1] >> 32 if shown else self._begin
        closed_at = self._closed_at[shown - 1] if shown else self._begun_at
        names = ("history_latest_ledger", "core_latest_ledger", "ingest_latest_ledger")
        now = dict.fromkeys(names, latest) | {"history_latest_ledger_closed_at": closed_at}
        return json.dumps(self._root | now).encode()

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=STREAM)
        await response.prepare(request)
        await response.write(HELLO)
        self.opened.set()
        position, left = int(request.query["cursor"]), int(request.query["limit"])
        while left:
            async with self._changed:
                while not (found := self._after(position, left)):
                    await self._changed.wait()
            position, left = self._tokens[found[-1]], left - len(found)
            await response.write(b"".join(map(self._event, found)))
        await response.write(GOODBYE)
        return response

    def _event(self, number: int) -> bytes:
        return b"id: %d\ndata: %b\n\n" % (self._tokens[number], self._records[number])


async def serve(ledger: Recorded, burst: int, every_s: float) -> None:
    """Listen until cancelled."""
    live = Live(ledger)
    await listen(live.answer)
    await live.opened.wait()
    await asyncio.sleep(1)
    await live.show(burst, every_s)
    say(live.shown_at)
    await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class Showing:
    """The Horizon as its parent sees it."""

    far_end: FarEnd
    url: str

    def shown_at(self) -> Sequence[float]:
        """Wait until all was shown: when each payment was, in order."""
        moments: list[float] = self.far_end.heard()
        return moments


@contextmanager
def showing(file: Path, burst: int, every_s: float) -> Iterator[Showing]:
    """Show a recorded ledger from another process."""
    with started("bench.live", file, burst, every_s) as horizon:
        yield Showing(horizon, horizon.heard())


if __name__ == "__main__":
    file_, burst_, every = sys.argv[1:]
    asyncio.run(serve(Recorded.load(Path(file_)), int(burst_), float(every)))

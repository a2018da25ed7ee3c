"""`python -m bench.endless FILE N`: a Horizon of N payments to one account, written when asked for.

In a process of its own: a million of them are six gigabytes of JSON, more than the process that is
measured may hold, or this one. The first payment of a recorded ledger is the pattern of all; the
n-th carries the id memo n. The URL is printed once it listens.
"""

import asyncio
import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from bench.far_end import listen, started
from bench.ledger import A_LEDGER, PAGE, Recorded
from bench.replay import HAL, HELLO, STREAM
from paywatch.domain.events import iso
from paywatch.domain.ledger import Position

CLOSE: Final = timedelta(seconds=5)


class Endless:
    """The answers to all requests that a daemon makes of one account."""

    def __init__(self, ledger: Recorded, payments: int) -> None:
        self._payments = payments
        self._account = ledger.account
        self._first = ledger.begin.ledger + 1
        self._begins_at = ledger.closed_at + CLOSE
        page = json.loads(ledger.pages[str(int(ledger.begin))])
        self._pattern = _pattern(page["_embedded"]["records"][0])
        self._root: dict[str, Any] = json.loads(ledger.documents["/"])
        self._paid = ledger.documents[f"/accounts/{ledger.account}"]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer whatever is known."""
        path = request.path
        if "text/event-stream" in request.headers.get("Accept", ""):
            return await self._stream(request)
        if path == f"/accounts/{self._account}/payments":
            body = self._page(Position(int(request.query["cursor"])))
        elif path == f"/accounts/{self._account}":
            body = self._paid
        elif path.startswith("/ledgers/"):
            body = json.dumps(self._ledger(int(path.rpartition("/")[2]))).encode()
        elif path == "/":
            body = json.dumps(self._root | self._latest()).encode()
        else:
            raise web.HTTPNotFound
        return web.Response(body=body, headers=HAL)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=STREAM)
        await response.prepare(request)
        await response.write(HELLO)
        await asyncio.Event().wait()  # all there is, is in pages
        return response

    def _page(self, after: Position) -> bytes:
        begin = self._place(after)
        end = min(begin + PAGE, self._payments)
        records = ",".join(self._pattern % self._values(n) for n in range(begin, end))
        return f'{{"_embedded":{{"records":[{records}]}}}}'.encode()

    def _place(self, after: Position) -> int:
        """How many payments there are up to a position."""
        ledgers = after.ledger - self._first
        if ledgers < 0:
            return 0
        in_ledger = int(after) - int(Position.of(after.ledger)) >> 12
        return min(ledgers * A_LEDGER + min(in_ledger, A_LEDGER), self._payments)

    def _values(self, n: int) -> dict[str, object]:
        operation = position_of(self._first, n)
        ledger = operation.ledger
        return {
            "operation": int(operation),
            "tx": int(operation) - 1,
            "hash": hashlib.sha256(str(n).encode()).hexdigest(),
            "memo": n + 1,
            "ledger": ledger,
            "closed_at": iso(self._closed_at(ledger)),
        }

    def _closed_at(self, ledger: int) -> Any:
        return self._begins_at + (ledger - self._first) * CLOSE

    def _ledger(self, sequence: int) -> dict[str, object]:
        return {
            "sequence": sequence,
            "hash": hashlib.sha256(f"ledger {sequence}".encode()).hexdigest(),
            "closed_at": iso(self._closed_at(sequence)),
        }

    def _latest(self) -> dict[str, object]:
        latest = self._first + (self._payments - 1) // A_LEDGER
        return {
            "history_latest_ledger": latest,
            "history_latest_ledger_closed_at": iso(self._closed_at(latest)),
        }


def position_of(first: int, n: int) -> Position:
    """Where the n-th payment stands, from 0, the first of them in the ledger `first`."""
    return Position.of(first + n // A_LEDGER, n % A_LEDGER + 1, 1)


def _pattern(record: dict[str, Any]) -> str:
    """Write a record with names in place of what every payment has of its own."""
    tx = record["transaction"]
    own = {
        f'"memo":"{tx["memo"]}"': '"memo":"%(memo)s"',
        f'"ledger":{tx["ledger"]},': '"ledger":%(ledger)s,',
        f"/ledgers/{tx['ledger']}": "/ledgers/%(ledger)s",
        record["id"]: "%(operation)s",
        tx["paging_token"]: "%(tx)s",
        tx["hash"]: "%(hash)s",
        record["created_at"]: "%(closed_at)s",
    }
    written = json.dumps(record, separators=(",", ":"))
    assert "%" not in written
    for value, name in own.items():
        assert value in written, value
        written = written.replace(value, name)
    return written


async def serve(endless: Endless) -> None:
    """Listen until cancelled."""
    await listen(endless.answer)
    await asyncio.Event().wait()


@contextmanager
def paying(file: Path, payments: int) -> Iterator[str]:
    """Serve so many payments from another process; gives the URL."""
    with started("bench.endless", file, payments) as horizon:
        yield horizon.heard()


if __name__ == "__main__":
    asyncio.run(serve(Endless(Recorded.load(Path(sys.argv[1])), int(sys.argv[2]))))

"""Horizon's server-sent events, byte for byte (`internal/render/sse`).

A stream ends after `limit` records in total, or when the connection's time is up. There is no
heartbeat. It looks for records once for every new ledger that it notices, and pays a token of the
rate limit for each look.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from paywatch.sim.faults import Fault, Faults, Moment
from paywatch.sim.pages import Listing, PageQuery, View
from paywatch.sim.problems import Problem, go_json, rate_limited
from paywatch.sim.records import JSON
from paywatch.sim.signals import Signal

HELLO: Final = b'retry: 1000\nevent: open\ndata: "hello"\n\n'
GOODBYE: Final = b'retry: 10\nevent: close\ndata: "byebye"\n\n'
_HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "Access-Control-Allow-Origin": "*",
}


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How streams behave.

    Args:
        update_s: how often a stream looks for a new ledger (`sse-update-frequency`); 0 is at once.
        connection_s: how long a connection may last (`connection-timeout`).
    """

    update_s: float = 5.0
    connection_s: float = 55.0


class EventStream:
    """One open stream.

    Args:
        listing, query, view: what is streamed.
        changed: notified whenever a ledger closes, and when a transaction waits for the next.
        settings: its times.
        faults: what goes wrong.
        may_look: takes a token of the rate limit.
    """

    def __init__(
        self,
        what: tuple[Listing, PageQuery, View],
        changed: Signal,
        settings: StreamSettings,
        faults: Faults,
        may_look: Callable[[], bool],
    ) -> None:
        self._listing, self._query, self._view = what
        self._changed = changed
        self._settings = settings
        self._faults = faults
        self._may_look = may_look
        self._left = self._query.limit
        self._time_limit: asyncio.Timeout

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer a request by a stream.

        Raises:
            Problem: before the first byte, an ordinary error.
        """
        records = self._look()
        response = web.StreamResponse(headers=_HEADERS)
        try:
            await response.prepare(request)
            await response.write(HELLO)
            await self._send_all(request, response, records)
            await response.write_eof()
        except ConnectionError:
            pass  # the client went, or was cut off
        return response

    async def _send_all(
        self, request: web.Request, response: web.StreamResponse, records: list[tuple[str, JSON]]
    ) -> None:
        try:
            async with asyncio.timeout(self._settings.connection_s) as self._time_limit:
                ended = await self._send_ledgers(request, response, records)
        except TimeoutError:
            ended = False
        except Problem as problem:
            await response.write(f"event: error\ndata: {problem}\n\n".encode())
            ended = True
        if not ended:
            await response.write(GOODBYE)

    async def _send_ledgers(
        self, request: web.Request, response: web.StreamResponse, records: list[tuple[str, JSON]]
    ) -> bool:
        """Send until the limit is reached (False) or a fault has ended the stream (True)."""
        while True:
            for token, record in records[: self._left]:
                if await self._send(request, response, token, record):
                    return True
                self._left -= 1
                self._query = self._query.after(token)
            if self._left <= 0:
                return False
            await self._next_ledger()
            records = self._look()

    def _look(self) -> list[tuple[str, JSON]]:
        if not self._may_look():
            raise rate_limited()
        return self._listing.page(self._query, self._view)

    async def _next_ledger(self) -> None:
        """Wait for a newer ledger, and for the moment at which the server would look."""
        loop, update_s = asyncio.get_running_loop(), self._settings.update_s
        seen, began = self._view.latest.sequence, loop.time()
        await self._changed.wait_for(lambda: self._view.latest.sequence > seen)
        if update_s > 0:
            waited = loop.time() - began
            await asyncio.sleep(update_s - waited % update_s)

    async def _send(
        self, request: web.Request, response: web.StreamResponse, token: str, record: JSON
    ) -> bool:
        """Send one event; True if a fault has ended the stream."""
        event = f"id: {token}\ndata: {go_json(record)}\n\n".encode()
        fault = self._faults.draw(Moment.EVENT, request.path)
        if fault == Fault.END_OF_STREAM:
            return True
        if fault == Fault.ERROR_EVENT:
            raise rate_limited()
        if fault == Fault.CUT:
            await response.write(event[: len(event) // 2])
            break_off(request)
            return True
        if fault == Fault.MALFORMED:
            event = f"id: {token}\ndata: {go_json(record)[:-1]}\n\n".encode()
        if fault == Fault.HANG:
            self._time_limit.reschedule(None)
            await asyncio.Event().wait()  # until the client goes
        if fault == Fault.REPLAY:
            count = self._faults.settings.replayed
            for old in self._listing.replay(self._query, self._view, count):
                await response.write(f"id: {old[0]}\ndata: {go_json(old[1])}\n\n".encode())
        if fault == Fault.DELAY:
            await asyncio.sleep(self._faults.delay_s(Moment.EVENT))
        await response.write(event)
        return False


def break_off(request: web.Request) -> None:
    """Close the connection before the answer is complete; what was written still arrives."""
    if request.transport is not None:
        request.transport.close()

"""The simulated Horizon: an HTTP server over one view of a ledger."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Self

from aiohttp import web

from paywatch.sim import problems
from paywatch.sim.faults import Fault, Faults, Moment
from paywatch.sim.pages import Listing, PageQuery, View
from paywatch.sim.problems import Problem
from paywatch.sim.ratelimit import Quota, RateLimiter, Verdict
from paywatch.sim.reading import HorizonReader, page_response
from paywatch.sim.signals import EventLog, Signal
from paywatch.sim.streaming import EventStream, StreamSettings, break_off
from paywatch.sim.submission import Submitter

_Next = Callable[[web.Request], Awaitable[web.StreamResponse]]
_HTML: Final = "<!DOCTYPE html><html><head><title>Just a moment...</title></head></html>"


@dataclass(frozen=True, slots=True)
class HorizonSettings:
    """How an instance behaves.

    Args:
        stream: the times of its streams.
        quota: the rate limit for one address; None for none.
        submit_s: how long a submission waits for its ledger.
        base_url: the address that the server believes it has, in links; its real one if None.
    """

    stream: StreamSettings = field(default_factory=lambda: StreamSettings(update_s=0.0))
    quota: Quota | None = None
    submit_s: float = 30.0
    base_url: str | None = None


@dataclass(slots=True)
class SeenRequest:
    """A request that arrived; `status` is None until the answer's first byte."""

    method: str
    path: str
    params: dict[str, str]
    stream: bool
    last_event_id: str | None
    status: int | None = None
    fault: Fault | None = None


_REPLAY: Final = web.RequestKey("replay", bool)
_SEEN: Final = web.RequestKey("seen", SeenRequest)
_VERDICT: Final = web.RequestKey("verdict", Verdict)


class HorizonServer:
    """One instance, listening on a port. An async context manager.

    Args:
        view: what it shows; its `lag` and `keep_from` may be changed at any time.
        changed: notified whenever a ledger closes, and when a transaction waits for the next.
        faults: what goes wrong.
        settings: how it behaves.
    """

    def __init__(
        self,
        view: View,
        changed: Signal,
        faults: Faults | None = None,
        settings: HorizonSettings | None = None,
    ) -> None:
        self.view = view
        self.faults = faults or Faults()
        self.settings = settings or HorizonSettings()
        self.requests: EventLog[SeenRequest] = EventLog()
        self._changed = changed
        self._own_url = ""
        self._port = 0
        self._runner: web.AppRunner | None = None
        self._limiter: RateLimiter | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return self._own_url

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> Self:
        """Listen; port 0 takes a free one, or after a `stop` the one it had."""
        loop = asyncio.get_running_loop()
        if self.settings.quota is not None:
            self._limiter = RateLimiter(self.settings.quota, loop.time)
        app = web.Application(middlewares=[self._see, self._explain, self._disturb, self._limit])
        reader = HorizonReader(self.view, self._serve_list, self._base_url)
        submitter = Submitter(self.view, self._changed, self._base_url, self.settings.submit_s)
        app.add_routes([*reader.routes(), *submitter.routes()])
        app.on_response_prepare.append(self._note_status)
        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port or self._port).start()
        address = self._runner.addresses[0]
        self._port = int(address[1])
        self._own_url = f"http://{address[0]}:{address[1]}"
        return self

    async def stop(self) -> None:
        """Stop listening and end every connection, as in an outage; `start` begins again."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        """Start on a free port."""
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()

    def _base_url(self) -> str:
        return self.settings.base_url or self._own_url

    @web.middleware
    async def _see(self, request: web.Request, handler: _Next) -> web.StreamResponse:
        seen = SeenRequest(
            request.method,
            request.path,
            dict(request.query),
            _streams(request),
            request.headers.get("Last-Event-ID"),
        )
        request[_SEEN] = seen
        self.requests.append(seen)
        return await handler(request)

    async def _note_status(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers.setdefault("Cache-Control", "no-cache, no-store, max-age=0")
        verdict = request.get(_VERDICT)
        if verdict is not None:
            response.headers.update(verdict.headers())
        request[_SEEN].status = response.status
        self.requests.changed()

    @web.middleware
    async def _explain(self, request: web.Request, handler: _Next) -> web.StreamResponse:
        try:
            return await handler(request)
        except Problem as problem:
            return problem.response()
        except web.HTTPNotFound:
            return problems.not_found().response()

    @web.middleware
    async def _disturb(self, request: web.Request, handler: _Next) -> web.StreamResponse:
        if request.method != "GET" or request.path == "/friendbot":
            return await handler(request)
        moment = Moment.STREAM if _streams(request) else Moment.PAGE
        fault = self.faults.draw(moment, request.path)
        request[_SEEN].fault = fault
        if fault in _ANSWERS:
            return _ANSWERS[fault]()
        if fault == Fault.RATE_LIMITED:
            retry_after = {"Retry-After": str(self.faults.settings.retry_after_s)}
            return problems.rate_limited().response(retry_after)
        if fault == Fault.HANG:
            await asyncio.Event().wait()  # until the client goes
        if fault == Fault.DELAY:
            await asyncio.sleep(self.faults.delay_s(moment))
        request[_REPLAY] = fault == Fault.REPLAY
        response = await handler(request)
        if fault in {Fault.CUT, Fault.MALFORMED} and isinstance(response, web.Response):
            return await _damaged(request, response, cut=fault == Fault.CUT)
        return response

    @web.middleware
    async def _limit(self, request: web.Request, handler: _Next) -> web.StreamResponse:
        # Streams pay for each look instead, and their refusals have none of the headers.
        if self._limiter is None or _streams(request):
            return await handler(request)
        verdict = self._limiter.take(request.remote or "")
        request[_VERDICT] = verdict
        if verdict.limited:
            raise problems.rate_limited()
        return await handler(request)

    async def _serve_list(self, request: web.Request, listing: Listing) -> web.StreamResponse:
        last_event_id = request.headers.get("Last-Event-ID")
        query = PageQuery.parse(request.query, self.view, last_event_id)
        if _streams(request):
            stream = EventStream(
                (listing, query, self.view),
                self._changed,
                self.settings.stream,
                self.faults,
                lambda: (
                    self._limiter is None or not self._limiter.take(request.remote or "").limited
                ),
            )
            return await stream.serve(request)
        found = listing.page(query, self.view)
        if request.get(_REPLAY):
            found = listing.replay(query, self.view, self.faults.settings.replayed) + found
        return page_response(request, found, query, self._base_url())


def _streams(request: web.Request) -> bool:
    return "text/event-stream" in request.headers.get("Accept", "")


async def _damaged(
    request: web.Request, response: web.Response, *, cut: bool
) -> web.StreamResponse:
    """Half of an answer, as if it were whole, or with the connection breaking behind it."""
    body = response.body if isinstance(response.body, bytes) else b""
    half = web.StreamResponse(status=response.status, headers=response.headers)
    half.headers["Content-Length"] = str(len(body) if cut else len(body) // 2)
    await half.prepare(request)
    await half.write(body[: len(body) // 2])
    if cut:
        break_off(request)
    else:
        await half.write_eof()
    return half


_ANSWERS: Final[dict[Fault | None, Callable[[], web.Response]]] = {
    Fault.NOT_FOUND: lambda: problems.not_found().response(),
    Fault.RATE_LIMITED_BARE: lambda: problems.rate_limited().response(),
    Fault.SERVER_ERROR: lambda: problems.server_error().response(),
    Fault.UNAVAILABLE: lambda: web.Response(status=503, text="Server capacity exceeded.\n"),
    Fault.GATEWAY_TIMEOUT: lambda: web.Response(status=504),
    Fault.HTML: lambda: web.Response(text=_HTML, content_type="text/html"),
}

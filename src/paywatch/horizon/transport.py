"""Horizon over HTTP: the SDK's asynchronous client interface, with limits on everything.

The SDK's own clients are not used for streams: they move the cursor before parsing, drop what is
not JSON, swallow `event: error`, can lose an event that was cut, and wait without limit for the
first one. Here every one of these ends the request with `HorizonUnavailable`.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Any, Final, NoReturn

import aiohttp
from stellar_sdk.client.base_async_client import BaseAsyncClient
from stellar_sdk.client.response import Response

from paywatch.errors import HorizonError, HorizonUnavailable
from paywatch.horizon.budget import Budget
from paywatch.horizon.sse import EventDecoder, ServerSentEvent
from paywatch.horizon.strict_json import parse_object
from paywatch.horizon.timing import Timing

GONE: Final = "status_410"  # older than what is kept
NOT_FOUND: Final = "not_found"  # Horizon's own 404; a proxy's is `status_404`
TOO_LARGE: Final = "too_large"
TIMEOUT: Final = "timeout"
RATE_LIMITED: Final = "status_429"
MAX_DOCUMENT_BYTES: Final = 32 << 20
MAX_PAGE_BYTES: Final = 8 << 20  # several accounts may be hit by the largest at once
MAX_RECORD_BYTES: Final = 1 << 20

_JSON_TYPES: Final = frozenset({"application/json", "application/hal+json"})
_EVENT_STREAM: Final = "text/event-stream"
_PROBLEM: Final = "application/problem+json"


async def at_once() -> None:
    """Wait for nothing."""


class JsonResponse(Response):
    """A response whose body is parsed already, strictly, and whose links nobody can follow.

    Links carry the host that the server believes it has: they are dropped.
    """

    def __init__(self, document: dict[str, Any], headers: Mapping[str, str], url: str) -> None:
        super().__init__(200, "", dict(headers), url)
        document.pop("_links", None)
        self._document = document

    def json(self) -> dict[str, Any]:
        """Give the parsed body."""
        return self._document


class HorizonTransport(BaseAsyncClient):
    """Reads documents and streams; never submits, never follows, never uses a proxy.

    Args:
        timing: time limits.
        on_response: called with the status code of each response, or why there was none.
        budget: counts the requests, and heeds what Horizon says of them.
        max_page_bytes: cap on a page of more than one record, after decompression; a single record
            may have as much as any document.
        max_record_bytes: cap on a streamed record.
        now: the wall clock, for a `Retry-After` that is a date.
        before_parsing: waits until a document may take the processor.
    """

    def __init__(  # noqa: PLR0913 - the boundary is wired here; all have defaults
        self,
        timing: Timing | None = None,
        on_response: Callable[[str], None] = lambda _: None,
        *,
        budget: Budget | None = None,
        max_page_bytes: int = MAX_PAGE_BYTES,
        max_record_bytes: int = MAX_RECORD_BYTES,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        before_parsing: Callable[[], Awaitable[None]] = at_once,
    ) -> None:
        self._timing = timing or Timing()
        self._on_response = on_response
        self.budget = budget or Budget()
        self._max_page_bytes = max_page_bytes
        self._max_record_bytes = max_record_bytes
        self._now = now
        self._before_parsing = before_parsing
        self._http: aiohttp.ClientSession | None = None

    async def get(
        self,
        url: str,
        params: dict[str, str] | None = None,
        max_content_size: int | None = None,
    ) -> JsonResponse:
        """Read one JSON object.

        Raises:
            HorizonUnavailable: with the reason `not_found` for Horizon's own 404.
        """
        largest = self._max_page_bytes if _asks_for_several(params) else MAX_DOCUMENT_BYTES
        cap = min(max_content_size or largest, largest)
        with self._failures():
            async with asyncio.timeout(self._timing.get_s):
                response = await self._open(url, params, {})
                async with response:
                    self._require(response, _JSON_TYPES)
                    body = await _read(response, cap)
        await self._before_parsing()
        return JsonResponse(parse_object(body, cap), response.headers, str(response.url))

    async def stream(
        self, url: str, params: dict[str, str] | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Read the records of one connection; ends only where Horizon says goodbye.

        The caller closes it (`contextlib.aclosing`).

        Raises:
            HorizonUnavailable: on anything but a goodbye: `cut` where the bytes end without one.
        """
        loop = asyncio.get_running_loop()
        decoder = EventDecoder(self._max_record_bytes)
        deadline = loop.time() + self._timing.first_event_s
        headers = {"Accept": _EVENT_STREAM, "Accept-Encoding": "identity"}
        with self._failures(), self.budget.streaming():
            async with asyncio.timeout_at(deadline):
                response = await self._open(url, params, headers)
            async with response:
                self._require(response, {_EVENT_STREAM})
                while True:
                    async with asyncio.timeout_at(deadline):
                        chunk = await response.content.readany()
                    if not chunk:
                        raise HorizonUnavailable("cut", "the stream ended without a goodbye")
                    has_event = False
                    for event in decoder.feed(chunk):
                        has_event = True
                        if event.event == "close":
                            return
                        if (record := self._record(event)) is not None:
                            yield record
                    if has_event:  # not bytes: dripping does not keep a stream alive
                        deadline = loop.time() + self._timing.silence_s

    async def post(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: paywatch sees money and never moves it."""
        raise HorizonError("paywatch never submits anything to Horizon")

    async def close(self) -> None:
        """Close all connections."""
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def _open(
        self, url: str, params: dict[str, str] | None, headers: dict[str, str]
    ) -> aiohttp.ClientResponse:
        if self._http is None:  # needs a running loop
            self._http = aiohttp.ClientSession(
                headers={
                    "User-Agent": f"paywatch/{version('paywatch')}",
                    "Accept": "application/hal+json, application/json",
                },
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timing.connect_s),
                # Each stream has at most one connection open and one request under way, so the
                # number of streams is the bound; a pool's limit would starve the later ones.
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        self.budget.spend()
        response = await self._http.get(url, params=params, headers=headers, allow_redirects=False)
        self._on_response(str(response.status))
        self.budget.heed(response.headers)
        return response

    def _require(
        self, response: aiohttp.ClientResponse, content_types: frozenset[str] | set[str]
    ) -> None:
        status, kind = response.status, response.content_type
        if status == 404 and kind == _PROBLEM:
            raise HorizonUnavailable(NOT_FOUND, f"not found: {response.url.path}")
        if status != 200:
            wait_s = read_retry_after(status, response.headers, self._now())
            if status == 429:
                self.budget.refuse(wait_s)
            raise HorizonUnavailable(
                f"status_{status}", f"HTTP {status} for {response.url.path}", wait_s
            )
        if kind not in content_types:
            raise HorizonUnavailable("not_json", f"{kind[:60]} for {response.url.path}")

    def _record(self, event: ServerSentEvent) -> dict[str, Any] | None:
        if event.event == "error":
            text = event.data[:200].decode(errors="replace")
            raise HorizonUnavailable("stream_error", f"Horizon ended the stream: {text}")
        if event.event != "message":  # `open`, and whatever comes to be
            return None
        return parse_object(event.data, self._max_record_bytes)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            self._on_response(TIMEOUT)
            raise HorizonUnavailable(TIMEOUT, "Horizon did not answer in time") from error
        except aiohttp.ClientError as error:
            self._on_response("connection")
            raise HorizonUnavailable("connection", f"{type(error).__name__}: {error}") from error


def _asks_for_several(params: Mapping[str, str] | None) -> bool:
    """Whether it is a page, of a limit that can be lowered: only pages have a cursor."""
    return params is not None and "cursor" in params and params.get("limit") != "1"


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > max_bytes:
            raise HorizonUnavailable(TOO_LARGE, f"a document of more than {max_bytes} bytes")
    return bytes(body)


def read_retry_after(status: int, headers: Mapping[str, str], now: datetime) -> float | None:
    """Read how many seconds Horizon asks to wait: `Retry-After`, or a 429's `X-RateLimit-Reset`."""
    asked = headers.get("Retry-After", "").strip()
    if not asked and status == 429:
        asked = headers.get("X-RateLimit-Reset", "").strip()  # seconds from now
    if asked.isascii() and asked.isdigit() and len(asked) < 10:
        return float(asked)
    try:
        at = parsedate_to_datetime(asked)
    except (ValueError, OverflowError):  # a number in it may be of any size
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - now).total_seconds())

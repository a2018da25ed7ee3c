"""One bounded POST: what leaves, where it goes, and how much of the answer is taken in."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from types import TracebackType
from typing import Final, Self

import aiohttp
from aiohttp.abc import AbstractResolver

from paywatch.domain.delivery import Answer, Failure
from paywatch.errors import WebhookRefused
from paywatch.webhooks.guard import GuardedResolver, Policy, ThreadedResolver, check_url

_DETAIL_LENGTH: Final = 300

# The first that fits; what fits none broke after the connection stood.
_FAILURES: Final = (
    (WebhookRefused, Failure.REFUSED),
    (aiohttp.ClientConnectorDNSError, Failure.DNS),
    (aiohttp.ClientSSLError, Failure.TLS),
    (aiohttp.ClientConnectorError, Failure.CONNECT),
    (TimeoutError, Failure.TIMEOUT),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one POST and of all of them together.

    Args:
        deadline_s: for everything: name look-up, waiting for a connection, TLS, body read.
        body_bytes: of the answer's body that are read, counted after decompression.
        excerpt_bytes: of the answer's body that are kept.
        connections: open at once; as many as can be in flight by the settings, or waiting for one
            would count against the deadline.
        connections_per_host: open at once to one host and port, which merchants may share.
        idle_s: how long a connection is kept for reuse. Below the 5 s after which common
            servers close an idle one, so that a POST does not meet a closing connection.
    """

    deadline_s: float = 15.0
    body_bytes: int = 64 * 1024
    excerpt_bytes: int = 4 * 1024
    connections: int = 5_000
    connections_per_host: int = 512
    idle_s: float = 4.0


class Sender:
    """Posts webhooks over one pool of connections; an async context manager.

    Args:
        policy: where a POST may go.
        limits: the bounds.
        resolver: the names of the outside world.
    """

    def __init__(
        self, policy: Policy, limits: Limits | None = None, resolver: AbstractResolver | None = None
    ) -> None:
        self._policy = policy
        self._limits = limits or Limits()
        self._resolver = GuardedResolver(policy, resolver or ThreadedResolver())
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            resolver=self._resolver,
            limit=self._limits.connections,
            limit_per_host=self._limits.connections_per_host,
            keepalive_timeout=self._limits.idle_s,
        )
        self._http = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            # The deadline is ours: aiohttp's own would not cover all that it must.
            timeout=aiohttp.ClientTimeout(total=None),
            trust_env=False,
            headers={
                "Content-Type": "application/json",
                "User-Agent": f"paywatch/{version('paywatch')}",
                "Accept-Encoding": "identity",
            },
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._http is not None:
            await self._http.close()
        await self._resolver.close()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """POST `body` once and say what came of it; trouble is an answer, never an exception."""
        if self._http is None:
            raise RuntimeError("enter the Sender (`async with`) before posting")
        ticks = asyncio.get_running_loop().time
        started = ticks()
        answer = Answer()
        excerpt = bytearray()
        try:
            async with asyncio.timeout(self._limits.deadline_s):
                target = check_url(url, self._policy)
                response = await self._http.post(
                    target, headers=headers, data=body, allow_redirects=False
                )
                answer = Answer(
                    status=response.status, retry_after=response.headers.get("Retry-After")
                )
                await self._read(response, excerpt)
        except Exception as error:  # noqa: BLE001 - hostile bytes in parsers that are not ours
            answer = replace(answer, failure=_failure(error), detail=self._detail(error))
        return replace(answer, excerpt=bytes(excerpt), duration_s=ticks() - started)

    async def _read(self, response: aiohttp.ClientResponse, excerpt: bytearray) -> None:
        """Read the body up to its bound, and keep its beginning even if the rest fails.

        A body beyond the bound is no failure: the merchant's word is the status.
        """
        left = self._limits.body_bytes
        try:
            while left > 0 and (chunk := await response.content.read(left)):
                left -= len(chunk)
                excerpt += chunk[: self._limits.excerpt_bytes - len(excerpt)]
        finally:
            # A connection whose body came whole is back in the pool already; others end here.
            response.close()

    def _detail(self, error: Exception) -> str:
        """The error in words that PostgreSQL and a log can hold: bounded, printable, no URL."""
        match error:
            case TimeoutError():
                return f"no complete answer within {self._limits.deadline_s:g} s"
            case aiohttp.ClientResponseError():  # its str() holds the URL
                text = error.message
            case aiohttp.InvalidURL():
                text = "invalid URL"
            case _:
                text = str(error)
        shown = "".join(c if c.isprintable() else " " for c in text[:_DETAIL_LENGTH])
        return shown or type(error).__name__


def _failure(error: Exception) -> Failure:
    return next((failure for kind, failure in _FAILURES if isinstance(error, kind)), Failure.BROKEN)

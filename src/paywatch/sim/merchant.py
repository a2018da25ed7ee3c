"""A simulated merchant: an HTTP server that receives webhooks and answers as it is told.

It checks Standard Webhooks v1 signatures on its own, so that paywatch's signing is judged by code
that does not share it.
"""

import asyncio
import base64
import hashlib
import hmac
import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from aiohttp import web

from paywatch.sim.signals import EventLog

TOLERANCE_S: Final = 300  # how old a signature may be, by the receiver's clock


@dataclass(frozen=True, slots=True)
class Answer:
    """What the merchant does with one request.

    Args:
        status: the status code.
        headers: such as `Location` or `Retry-After`.
        body: the first bytes of the answer.
        padding: so many more bytes behind them.
        delay_s: seconds before the answer begins.
        pause_s: seconds between the head and the body.
        hang: never answer.
        reset: break the connection without an answer.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    padding: int = 0
    delay_s: float = 0.0
    pause_s: float = 0.0
    hang: bool = False
    reset: bool = False


@dataclass(frozen=True, slots=True)
class ReceivedWebhook:
    """One request as it came, with the exact bytes of its body."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """The `webhook-id`."""
        return self.headers.get("webhook-id", "")

    @property
    def type(self) -> str:
        """The event's type, or nothing if the body is no event."""
        payload = self.payload()
        return str(payload.get("type", "")) if isinstance(payload, dict) else ""

    def payload(self) -> Any:
        """The body as JSON; None if it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def verified_by(self, secret: str, now_s: float | None = None) -> bool:
        """Whether a `whsec_…` secret signed exactly these bytes (Standard Webhooks 1.0.0).

        Args:
            secret: the endpoint's.
            now_s: the receiver's clock in Unix seconds; None does not judge the signature's age.
        """
        stamp = self.headers.get("webhook-timestamp", "")
        if not (stamp.isascii() and stamp.isdigit()):
            return False
        if now_s is not None and abs(now_s - int(stamp)) > TOLERANCE_S:
            return False
        key = base64.b64decode(secret.removeprefix("whsec_"))
        signed = f"{self.id}.{stamp}.".encode() + self.body
        expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        given = self.headers.get("webhook-signature", "").split(" ")
        return any(hmac.compare_digest(f"v1,{expected}", one) for one in given)


class Merchant:
    """The receiver, as an async context manager; every path is an endpoint.

    Args:
        host, port: where it listens; port 0 takes a free one.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._host = host
        self._port = port
        self.default = Answer()
        self.answer_by: Callable[[ReceivedWebhook], Answer] | None = None  # instead of the queue
        self.received: EventLog[ReceivedWebhook] = EventLog()
        self._script: deque[tuple[str, Answer]] = deque()
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        """Listen."""
        app = web.Application(client_max_size=1024**2)
        app.router.add_route("*", "/{path:.*}", self._receive)
        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        address = self._runner.addresses[0]
        self.url = f"http://{address[0]}:{address[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        if self._runner is not None:
            await self._runner.cleanup()

    def answer(self, *answers: Answer, path: str = "") -> None:
        """Queue answers for the next requests to paths that hold `path`."""
        self._script.extend((path, answer) for answer in answers)

    async def wait_for(
        self, count: int = 1, wanted: Callable[[ReceivedWebhook], bool] = lambda _: True
    ) -> list[ReceivedWebhook]:
        """Wait until so many of the received webhooks are wanted, and give them."""
        return await self.received.wait_for(wanted, count)

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        webhook = ReceivedWebhook(request.path, headers, body)
        answer_by = self.answer_by
        answer = answer_by(webhook) if answer_by else self._next_answer(request.path)
        self.received.append(webhook)
        await asyncio.sleep(answer.delay_s)
        if answer.reset and request.transport is not None:
            request.transport.abort()
        if answer.hang:
            await asyncio.Event().wait()  # until the client goes
        return await _send(request, answer)

    def _next_answer(self, path: str) -> Answer:
        for index, (wanted, answer) in enumerate(self._script):
            if wanted in path:
                del self._script[index]
                return answer
        return self.default


async def _send(request: web.Request, answer: Answer) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    await response.prepare(request)
    await asyncio.sleep(answer.pause_s)
    await response.write(answer.body)
    left = answer.padding
    while left > 0:
        chunk = min(left, 65_536)
        await response.write(b"x" * chunk)
        left -= chunk
    await response.write_eof()
    return response

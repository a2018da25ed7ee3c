"""`python -m bench.receiver`: the merchants' server, in a process of its own.

It reads just enough of HTTP to answer 200 to a POST and to note when each came, so that it costs
the sender's machine as little as may be. Its URL is printed once it listens; each line on its
standard input, a number, is answered by that many arrivals as JSON, once they are there.
"""

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from bench.far_end import FarEnd, say, started

LONGEST_S: Final = 120.0
_ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class _Arrivals:
    """The ids of the webhooks and when each came, in seconds of the machine's monotonic clock."""

    def __init__(self) -> None:
        self._came: list[tuple[str, float]] = []
        self._wanted = 0
        self._enough = asyncio.Event()

    def note(self, id_: str) -> None:
        self._came.append((id_, time.monotonic()))
        if len(self._came) == self._wanted:
            self._enough.set()

    async def take(self, count: int) -> list[tuple[str, float]]:
        """Wait for so many, but not for ever, and forget them all."""
        self._wanted = count
        if len(self._came) < count:
            self._enough.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._enough.wait(), LONGEST_S)
        came, self._came = self._came, []
        return came


class _Connection(asyncio.Protocol):
    """One kept-alive connection."""

    def __init__(self, arrivals: _Arrivals) -> None:
        self._arrivals = arrivals
        self._received = b""
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end].lower() + b"\r\n"
            size = end + 4 + int(_header(head, b"content-length") or 0)
            if len(self._received) < size:
                return
            self._received = self._received[size:]
            self._arrivals.note(_header(head, b"webhook-id"))
            self._transport.write(_ANSWER)


def _header(head: bytes, name: bytes) -> str:
    _, found, rest = head.partition(b"\r\n" + name + b":")
    return rest[: rest.index(b"\r\n")].strip().decode() if found else ""


async def serve() -> None:
    """Listen until the standard input ends."""
    arrivals, loop = _Arrivals(), asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(arrivals), "127.0.0.1", 0)
    say("http://{}:{}".format(*server.sockets[0].getsockname()[:2]))
    asked = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asked), sys.stdin)
    while line := await asked.readline():
        say(await arrivals.take(int(line)))


@dataclass(frozen=True, slots=True)
class Receiver:
    """The receiver as its parent sees it."""

    far_end: FarEnd
    url: str

    def take(self, count: int) -> list[tuple[str, float]]:
        """Wait until so many POSTs have come since the last time: their ids and times.

        Raises:
            AssertionError: they have not come within LONGEST_S.
        """
        came = [(id_, at) for id_, at in self.far_end.ask(count)]
        assert len(came) >= count, f"only {len(came)} of {count} webhooks have come"
        return came


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Run a receiver."""
    with started("bench.receiver") as receiver:
        yield Receiver(receiver, receiver.heard())


if __name__ == "__main__":
    asyncio.run(serve())

"""A server of raw bytes, for what no decent server would send."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from types import EllipsisType

import pytest

from paywatch.horizon.timing import Timing

# Quick where a test waits for us to act, patient where a busy machine makes us slow.
FAST = Timing(
    connect_s=10.0,
    get_s=10.0,
    first_event_s=10.0,
    silence_s=10.0,
    reconcile_s=0.1,
    overlap_s=0.0,  # one instance
    root_age_s=0.0,
    backoff_base_s=0.002,
    backoff_cap_s=0.02,
    retry_after_cap_s=0.01,
)
HASTY = replace(FAST, get_s=0.3, first_event_s=0.3, silence_s=0.3)  # for what hangs


Piece = bytes | EllipsisType | None


class RawServer:
    """Answers each request with the next of its answers, byte for byte.

    `None` among an answer's pieces is silence until the client goes; `...` is drops of a comment.
    """

    def __init__(self, *answers: list[Piece]) -> None:
        self.answers = list(answers)
        self.requests: list[str] = []
        self.url = ""
        self._open: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(head.decode())
            for piece in self.answers.pop(0):
                if isinstance(piece, bytes):
                    writer.write(piece)
                    await writer.drain()
                else:
                    await until_gone(reader, writer, b": a drop\n" if piece is ... else b"")
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self._open.discard(task)

    async def drain(self) -> None:
        await asyncio.gather(*self._open, return_exceptions=True)


async def until_gone(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, drop: bytes
) -> None:
    gone = asyncio.ensure_future(reader.read())
    while not gone.done():
        writer.write(drop)
        await asyncio.wait([gone], timeout=0.01)


Serve = Callable[..., AbstractAsyncContextManager[RawServer]]


@pytest.fixture
def raw_server() -> Serve:
    @asynccontextmanager
    async def serving(*answers: list[Piece]) -> AsyncIterator[RawServer]:
        raw = RawServer(*answers)
        server = await asyncio.start_server(raw.serve, "127.0.0.1", 0)
        raw.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield raw
        finally:
            server.close()
            await raw.drain()

    return serving


@pytest.fixture
def fast() -> Timing:
    return FAST


@pytest.fixture
def hasty() -> Timing:
    return HASTY

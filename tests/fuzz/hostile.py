"""A server that says any bytes, on a loop that goes on from one run to the next."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

LARGEST: Final = 1 << 20


class Hostile:
    """Answers each request with the bytes at hand, and closes the connection behind them.

    Attributes:
        says: the bytes.
        sent: how many of them its clients took, at most.
    """

    def __init__(self) -> None:
        self.says = b""
        self.sent = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: asyncio.Server | None = None

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that asks it, to its end."""
        assert self._loop is not None, "open it first"
        self._loop.run_until_complete(asyncio.wait_for(work, 20))

    def open(self) -> str:
        """Listen, once; gives its URL."""
        if self._server is None:
            self._loop = asyncio.new_event_loop()
            self._server = self._loop.run_until_complete(
                asyncio.start_server(self._serve, "127.0.0.1", 0)
            )
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        """Listen no more."""
        if self._server is not None and self._loop is not None:
            self._server.close()
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()
            self._server = self._loop = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            for at in range(0, len(self.says), 4096):
                writer.write(self.says[at : at + 4096])
                await writer.drain()
                self.sent = at + 4096
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has had enough
        finally:
            writer.close()

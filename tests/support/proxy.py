"""A proxy in front of PostgreSQL that loses the connection where a test wants it lost.

The idea is psycopg's `tests/fix_proxy.py`; this one also knows the moment before and the moment
after COMMIT, which the client cannot tell apart.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from enum import Enum, auto

from sqlalchemy import make_url


class Cut(Enum):
    """Where to lose the connection."""

    NEVER = auto()
    BEFORE_COMMIT = auto()  # the server never sees it
    AFTER_COMMIT = auto()  # the server does it, the client never hears


class Proxy:
    """Passes bytes to a PostgreSQL socket; cuts the next `cuts` commits off."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self.cut = Cut.NEVER
        self.cuts = 0
        self.port = 0
        self._open = asyncio.Event()
        self._open.set()
        self._conversations: set[asyncio.Task[None]] = set()
        self._pumps: set[asyncio.Task[None]] = set()

    def stall(self) -> None:
        """Pass nothing on any more, and tell nobody: a network that swallows everything."""
        self._open.clear()

    async def lose_all(self) -> None:
        """Lose all connections at once, on both sides."""
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)

    async def flow(self) -> None:
        """Pass everything on again; connections that were stalled are lost meanwhile."""
        await self.lose_all()
        self._open.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = asyncio.current_task()
        assert conversation is not None
        self._conversations.add(conversation)
        conversation.add_done_callback(self._conversations.discard)
        await self._converse(reader, writer)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(self._socket_path)
        committed = asyncio.Event()
        pumps = [
            asyncio.create_task(self._to_server(reader, server_writer, committed)),
            asyncio.create_task(self._to_client(server_reader, writer, committed)),
        ]
        self._pumps.update(pumps)
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        self._pumps.difference_update(pumps)
        for end in (writer, server_writer):
            end.close()
            with contextlib.suppress(OSError):
                await end.wait_closed()

    async def _to_server(
        self, client: asyncio.StreamReader, server: asyncio.StreamWriter, committed: asyncio.Event
    ) -> None:
        while data := await client.read(65536):
            if b"COMMIT" in data and self.cuts:
                self.cuts -= 1
                if self.cut is Cut.BEFORE_COMMIT:
                    return
                committed.set()
            await self._open.wait()
            server.write(data)
            await server.drain()
        await self._open.wait()

    async def _to_client(
        self, server: asyncio.StreamReader, client: asyncio.StreamWriter, committed: asyncio.Event
    ) -> None:
        while data := await server.read(65536):
            if committed.is_set():
                return
            await self._open.wait()
            client.write(data)
            await client.drain()
        await self._open.wait()


@contextlib.asynccontextmanager
async def database_proxy(database_url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """Run a proxy before an embedded database; gives it and the URL that leads through it."""
    url = make_url(database_url)
    proxy = Proxy(f"{url.query['host']}/.s.PGSQL.5432")
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    through = url.set(host="127.0.0.1", port=proxy.port, query={"sslmode": "disable"})
    async with server:
        yield proxy, through.render_as_string(hide_password=False)
        await proxy.lose_all()

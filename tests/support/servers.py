"""Servers on loopback that behave as merchants' servers do, and as they should not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from ssl import SSLContext

from aiohttp import web

Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Servers:
    """Starts servers and gives their URLs."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def http(self, answer: Answering) -> str:
        """A well-behaved HTTP server that answers every POST by `answer`."""
        app = web.Application()
        app.router.add_post("/{path:.*}", answer)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def raw(self, talk: Conversation, tls: SSLContext | None = None) -> str:
        """A server that says what `talk` writes, HTTP or not."""
        return await self._stack.enter_async_context(_raw(talk, tls))


@asynccontextmanager
async def _raw(talk: Conversation, tls: SSLContext | None) -> AsyncIterator[str]:
    conversations: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        conversations.add(task)
        try:
            await talk(reader, writer)
        except (asyncio.CancelledError, ConnectionError):
            pass  # the client hung up, or the test ended
        finally:
            writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in conversations:
            task.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)

"""uvicorn inside a daemon that has its own idea of signals, sockets and logs."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from paywatch.errors import ConfigError

_GRACE_S = 5
_MOST_CONNECTIONS = 1_000


class _Server(uvicorn.Server):
    """Leaves SIGTERM and SIGINT to the daemon, which stops all of its loops in order."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen_on(host: str, port: int) -> socket.socket:
    """A socket that listens, before anything else starts: a port in use is a setting's problem.

    Raises:
        ConfigError: the address cannot be had.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=_MOST_CONNECTIONS)
    except OSError as error:
        problem = (
            f"PAYWATCH_HTTP_HOST, PAYWATCH_HTTP_PORT: cannot listen on {host} port {port}: "
            f"{error.strerror}; choose another address or port, or stop what uses it"
        )
        raise ConfigError([problem]) from error


def url_of(listening: socket.socket) -> str:
    """Where a listening socket is reached, its real port included."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(app: FastAPI, listening: socket.socket, stopping: asyncio.Event) -> None:
    """Serve until `stopping` is set or this task is canceled; requests in flight are finished."""
    config = uvicorn.Config(
        app,
        log_config=None,  # the daemon's own logging has all of it,
        log_level="warning",  # and tells of its start and its end itself
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _Server(config)

    async def stop() -> None:
        await stopping.wait()
        server.should_exit = True

    async with asyncio.TaskGroup() as group:
        stopper = group.create_task(stop())
        try:
            await server.serve(sockets=[listening])
        except asyncio.CancelledError:
            if server.started:
                await server.shutdown(sockets=[listening])
            raise
        finally:
            listening.close()
            stopper.cancel()

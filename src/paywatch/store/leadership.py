"""Who leads which stream: advisory locks, held by one connection for all streams of a process.

A lock goes with its session. So a killed leader's are free at once, and those of one that is
frozen or cut off when the server ends its session, which `idle_session_timeout` makes it do.
"""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

LOCK_SEED: Final = 0x7061_7977  # "payw": not the keys that another program makes of the same names

# The answer is one short row, however many streams: a backend that waits for a frozen client to
# read on is not idle, and would keep the locks.
_ACQUIRE = text(
    f"""
SELECT coalesce(json_agg(n - 1), '[]') AS numbers
  FROM json_array_elements_text(CAST(:streams AS json)) WITH ORDINALITY AS wanted (stream, n)
 WHERE pg_try_advisory_lock(hashtextextended(stream, {LOCK_SEED}))"""
)

_RELEASE = text(
    f"""
SELECT count(pg_advisory_unlock(hashtextextended(stream, {LOCK_SEED})))
  FROM json_array_elements_text(CAST(:streams AS json)) AS held (stream)"""
)


async def acquire(conn: AsyncConnection, streams: Sequence[str]) -> set[str]:
    """Take the locks that are free, and name their streams; without any it is a sign of life.

    A lock that this connection holds already would be taken once more: do not ask for it.
    Two names with one key, of 2^64, would only be led by the same process.
    """
    numbers = (await conn.execute(_ACQUIRE, {"streams": json.dumps(streams)})).scalar_one()
    return {streams[number] for number in numbers}


async def release(conn: AsyncConnection, streams: Collection[str]) -> None:
    """Give locks back that this connection holds."""
    await conn.execute(_RELEASE, {"streams": json.dumps(sorted(streams))})


@asynccontextmanager
async def answered_within(conn: AsyncConnection, seconds: float) -> AsyncIterator[None]:
    """Cut a connection off whose server does not answer in time: what waits for it then fails.

    Canceling would not do: psycopg then waits for the server to say that it has canceled.
    """
    raw = await conn.get_raw_connection()
    timer = asyncio.get_running_loop().call_later(seconds, _cut_off, raw.driver_connection)
    try:
        yield
    finally:
        timer.cancel()


def _cut_off(connection: Any) -> None:
    if connection.closed:
        return
    with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as sock:
        sock.shutdown(socket.SHUT_RDWR)

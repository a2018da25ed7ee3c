"""Waiting for the moment at which somebody waits."""

import asyncio

import psycopg


async def somebody_waits_for_a_lock(conn: psycopg.Connection[tuple[int]], count: int = 1) -> None:
    """Return when so many connections to the database of `conn` wait for a lock."""
    waiting = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(60):  # a new process starts slowly on a busy machine
        while (conn.execute(waiting).fetchone() or (0,))[0] < count:
            conn.rollback()
            await asyncio.sleep(0)
    conn.rollback()

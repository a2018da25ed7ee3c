"""Waiting for the moment at which somebody waits."""

import asyncio

import psycopg


async def somebody_waits_for_a_lock(conn: psycopg.Connection[tuple[int]]) -> None:
    """Return when a connection to the database of `conn` waits for a lock."""
    waiting = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(10):
        while conn.execute(waiting).fetchone() == (0,):
            conn.rollback()
            await asyncio.sleep(0)
    conn.rollback()

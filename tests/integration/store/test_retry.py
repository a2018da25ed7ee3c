"""Errors as a real PostgreSQL raises them: which pass by themselves, and which are bad data."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from paywatch.store.engine import create_engine
from paywatch.store.retry import (
    is_data_error,
    outcome_unknown,
    persistently,
    sqlstate,
    transient_reason,
)
from support.locks import somebody_waits_for_a_lock

Provoke = Callable[[AsyncEngine, str], Awaitable[None]]

LOCK: Final = "SELECT FROM things WHERE id = {} FOR UPDATE"


async def run(conn: AsyncConnection, *statements: str) -> None:
    for statement in statements:
        await conn.execute(text(statement))


async def serialization_failure(engine: AsyncEngine, _url: str) -> None:
    async with engine.connect() as one, engine.connect() as two:
        await run(one, "SELECT * FROM things")
        await run(two, "UPDATE things SET value = value + 1")
        await two.commit()
        await run(one, "UPDATE things SET value = value + 1")


async def failure_at_commit(engine: AsyncEngine, _url: str) -> None:
    """Write skew: each reads what the other writes; only the COMMIT can tell."""
    async with engine.connect() as one, engine.connect() as two:
        for conn, number in ((one, 1), (two, 2)):
            await run(conn, "SELECT sum(value) FROM things")
            await run(conn, f"UPDATE things SET value = 7 WHERE id = {number}")
        await one.commit()
        await two.commit()


async def deadlock(engine: AsyncEngine, url: str) -> None:
    async with engine.connect() as one, engine.connect() as two:
        for conn in (one, two):
            await run(conn, "SET LOCAL deadlock_timeout = '10ms'")
        await run(one, LOCK.format(1))
        await run(two, LOCK.format(2))
        waiting = asyncio.ensure_future(run(one, LOCK.format(2)))
        with psycopg.connect(url) as watcher:
            await somebody_waits_for_a_lock(watcher)
        second = await asyncio.gather(run(two, LOCK.format(1)), return_exceptions=True)
        await two.rollback()
        first = await asyncio.gather(waiting, return_exceptions=True)
        for error in (*first, *second):
            if error is not None:
                raise error


async def lock_timeout(engine: AsyncEngine, _url: str) -> None:
    async with engine.connect() as one, engine.connect() as two:
        await run(one, LOCK.format(1))
        await run(two, "SET LOCAL lock_timeout = '10ms'", LOCK.format(1))


async def statement_timeout(engine: AsyncEngine, _url: str) -> None:
    async with engine.connect() as conn:
        await run(conn, "SET LOCAL statement_timeout = '10ms'", "SELECT pg_sleep(60)")


async def terminated(engine: AsyncEngine, url: str) -> None:
    async with engine.connect() as conn:
        await run(conn, "SELECT 1")
        terminate_all(url)
        await run(conn, "SELECT 1")


async def not_allowed_to_connect(engine: AsyncEngine, url: str) -> None:
    await engine.dispose()
    database = url.partition("?")[0].rpartition("/")[2]
    with psycopg.connect(url.replace(f"/{database}", "/postgres"), autocommit=True) as server:
        server.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
        try:
            async with engine.connect() as conn:
                await run(conn, "SELECT 1")
        finally:
            server.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")


async def nobody_there(_engine: AsyncEngine, _url: str) -> None:
    engine = create_engine("postgresql://paywatch@127.0.0.1:1/paywatch")
    try:
        async with engine.connect():
            pass
    finally:
        await engine.dispose()


async def no_connection_free(_engine: AsyncEngine, url: str) -> None:
    engine = create_engine(url, pool_size=1)
    engine.pool._timeout = 0.01  # type: ignore[attr-defined] # of the queue pool
    try:
        async with engine.connect(), engine.connect():
            pass
    finally:
        await engine.dispose()


def failing(statement: str) -> Provoke:
    async def provoke(engine: AsyncEngine, _url: str) -> None:
        async with engine.connect() as conn:
            await run(conn, statement)

    return provoke


def terminate_all(url: str) -> None:
    with psycopg.connect(url) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@pytest.fixture
async def things(engine: AsyncEngine) -> AsyncEngine:
    async with engine.begin() as conn:
        await run(
            conn,
            "CREATE TABLE things (id integer PRIMARY KEY, value integer CHECK (value < 100))",
            "INSERT INTO things VALUES (1, 1), (2, 2)",
        )
    return engine


@pytest.mark.parametrize(
    ("provoke", "code", "reason", "is_data", "is_unknown"),
    [
        (serialization_failure, "40001", "serialization_failure", False, False),
        (failure_at_commit, "40001", "serialization_failure", False, False),
        (deadlock, "40P01", "deadlock", False, False),
        (lock_timeout, "55P03", "lock_timeout", False, False),
        (statement_timeout, "57014", "statement_timeout", False, False),
        (terminated, "57P01", "shutdown", False, True),
        (not_allowed_to_connect, None, "connection", False, True),
        (nobody_there, None, "connection", False, True),
        (no_connection_free, None, "pool", False, False),
        (failing("INSERT INTO things VALUES (1, 3)"), "23505", None, True, False),
        (failing("INSERT INTO things VALUES (3, 100)"), "23514", None, True, False),
        (failing("SELECT convert_from('\\xff', 'UTF8')"), "22021", None, True, False),
        (failing("SELECT 9223372036854775807 + 1"), "22003", None, True, False),
        (failing("SELECT 'no number'::integer"), "22P02", None, True, False),
        (failing("SELECT * FROM nothing"), "42P01", None, False, False),
        (failing("SELEKT"), "42601", None, False, False),
    ],
)
async def test_an_error_is_told_by_what_postgresql_says(  # noqa: PLR0917 - a table's columns
    things: AsyncEngine,
    database_url: str,
    provoke: Provoke,
    code: str | None,
    reason: str | None,
    is_data: bool,
    is_unknown: bool,
) -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011 - what it is, is asserted below
        await provoke(things, database_url)
    error = raised.value
    told = (sqlstate(error), transient_reason(error), is_data_error(error), outcome_unknown(error))
    assert told == (code, reason, is_data, is_unknown)


@pytest.mark.parametrize("error", [ValueError("x"), asyncio.CancelledError(), OSError()])
def test_what_is_not_the_databases_is_neither(error: BaseException) -> None:
    assert transient_reason(error) is None
    assert not is_data_error(error)
    assert not outcome_unknown(error)


async def test_a_transaction_is_run_again_until_it_passes(
    things: AsyncEngine, database_url: str
) -> None:
    runs, reasons = 0, list[str]()

    async def add_one() -> int:
        nonlocal runs
        runs += 1
        async with things.begin() as conn:
            await run(conn, "SELECT * FROM things")
            if runs == 1:
                terminate_all(database_url)
            if runs == 2:
                with psycopg.connect(database_url) as other:
                    other.execute("UPDATE things SET value = 10")
            statement = "UPDATE things SET value = value + 1 WHERE id = 1 RETURNING value"
            return int((await conn.execute(text(statement))).scalar_one())

    assert await persistently(add_one, rng=Random(1), on_retry=reasons.append) == 11
    assert reasons == ["shutdown", "serialization_failure"]


async def test_an_error_that_will_not_pass_is_raised_at_once(things: AsyncEngine) -> None:
    runs = 0

    async def refuse() -> None:
        nonlocal runs
        runs += 1
        async with things.begin() as conn:
            await run(conn, "INSERT INTO things VALUES (1, 1)")

    with pytest.raises(IntegrityError):
        await persistently(refuse, rng=Random(1))
    assert runs == 1


async def test_a_cancellation_ends_the_trying(things: AsyncEngine) -> None:
    tried = asyncio.Event()

    async def fail() -> None:
        async with things.begin() as conn:
            tried.set()
            await run(conn, "SET LOCAL statement_timeout = '1ms'", "SELECT pg_sleep(60)")

    trying = asyncio.create_task(persistently(fail, rng=Random(1)))
    await tried.wait()
    trying.cancel()
    with pytest.raises((asyncio.CancelledError, DBAPIError)):
        await trying
    assert trying.cancelled()

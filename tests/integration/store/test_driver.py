"""Statements that go to psycopg by themselves: errors and connections as the usual way has them."""

import asyncio

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from paywatch.errors import StoreError
from paywatch.store.driver import execute
from paywatch.store.engine import create_engine
from paywatch.store.retry import is_data_error, transient_reason

PID = text("SELECT pg_backend_pid()")
LOCK = 7  # an advisory lock's number
LONGEST_S = 20


async def pid(conn: AsyncConnection) -> int:
    [(found,)] = await (await execute(conn, PID, {})).fetchall()
    return int(found)


async def test_it_is_a_statement_of_the_transaction(database_url: str) -> None:
    engine = create_engine(database_url)
    create, count = text("CREATE TABLE log (n int)"), text("SELECT count(*) FROM log WHERE n = :n")
    async with engine.connect() as conn:
        with pytest.raises(StoreError, match="no transaction is open"):
            await execute(conn, count, {"n": 7})
        await conn.execute(create)
        done = await execute(conn, text("INSERT INTO log VALUES (:n), (:n)"), {"n": 7})
        assert done.rowcount == 2
        assert (await conn.execute(count, {"n": 7})).scalar_one() == 2
        isolation = await execute(conn, text("SHOW transaction_isolation"), {})
        assert await isolation.fetchall() == [("serializable",)]
        await conn.rollback()
        await conn.begin()
        with pytest.raises(DBAPIError, match="does not exist"):
            await execute(conn, count, {"n": 7})
    await engine.dispose()


async def test_refused_data_is_told_by_its_code_and_without_the_data(database_url: str) -> None:
    engine = create_engine(database_url, pool_size=1)
    async with engine.connect() as conn, conn.begin():
        before = await pid(conn)
        with pytest.raises(DBAPIError) as caught:
            await execute(conn, text("SELECT CAST(:n AS int) / 0"), {"n": 123456})
    assert is_data_error(caught.value)
    assert transient_reason(caught.value) is None
    assert "123456" not in str(caught.value), "a batch's rows have no place in a log"
    async with engine.begin() as conn:
        assert await pid(conn) == before, "the connection is as good as before"
    await engine.dispose()


async def test_a_lost_connection_is_transient_and_never_lent_again(database_url: str) -> None:
    engine = create_engine(database_url, pool_size=1)
    lost = 0

    async def lose_it() -> None:
        nonlocal lost
        async with engine.begin() as conn:
            lost = await pid(conn)
            with psycopg.connect(database_url) as other:
                other.execute("SELECT pg_terminate_backend(%s, 10000)", [lost])
            await execute(conn, PID, {})

    with pytest.raises(OperationalError) as caught:
        await lose_it()
    assert caught.value.connection_invalidated
    assert transient_reason(caught.value) == "shutdown"
    async with engine.begin() as conn:
        assert await pid(conn) != lost
    await engine.dispose()


async def test_one_that_is_canceled_leaves_its_answer_to_nobody(database_url: str) -> None:
    engine = create_engine(database_url, pool_size=1)
    lock = text(f"SELECT pg_advisory_xact_lock({LOCK})")
    canceled = 0

    async def wait_in_vain() -> None:
        nonlocal canceled
        async with asyncio.timeout(0.1), engine.begin() as conn:
            canceled = await pid(conn)
            await execute(conn, lock, {})

    with psycopg.connect(database_url) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        with pytest.raises(TimeoutError):
            await wait_in_vain()
    async with asyncio.timeout(LONGEST_S), engine.begin() as conn:
        assert await pid(conn) != canceled
    await engine.dispose()

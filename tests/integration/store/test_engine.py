"""The connection pool: every connection with its limits, and a new one for each that was lost."""

import asyncio
from contextlib import AsyncExitStack

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from paywatch.errors import ConfigError
from paywatch.store.engine import POOL_SIZE, create_engine, sqlalchemy_url

SETTINGS = "SELECT name, current_setting(name) AS value FROM unnest(CAST(:names AS text[])) AS name"


async def test_every_connection_of_the_pool_has_the_limits(
    engine: AsyncEngine, database_url: str
) -> None:
    """Whatever an administrator has set for the database."""
    with psycopg.connect(database_url, autocommit=True) as other:
        name = other.info.dbname
        for setting in ("synchronous_commit = off", "timezone = 'Asia/Tokyo'", "lock_timeout = 0"):
            other.execute(f"ALTER DATABASE {name} SET {setting}")
    expected = {
        "timezone": "UTC",
        "synchronous_commit": "on",
        "lock_timeout": "5s",
        "statement_timeout": "30s",
        "idle_in_transaction_session_timeout": "5s",
        "application_name": "paywatch",
        "transaction_isolation": "serializable",
    }
    async with AsyncExitStack() as pool:
        conns = [await pool.enter_async_context(engine.connect()) for _ in range(POOL_SIZE)]
        pids = set()
        for conn in conns:
            found = await conn.execute(text(SETTINGS), {"names": list(expected)})
            assert {row.name: row.value for row in found} == expected
            pids.add((await conn.execute(text("SELECT pg_backend_pid()"))).scalar_one())
        assert len(pids) == POOL_SIZE


async def test_a_limit_changed_for_one_transaction_is_back_for_the_next(
    database_url: str,
) -> None:
    engine = create_engine(database_url, pool_size=1)
    async with engine.begin() as conn:
        await conn.execute(text("SET LOCAL statement_timeout = '10min'"))
    weaker = engine.execution_options(isolation_level="READ COMMITTED")
    async with weaker.begin() as conn:
        level = (await conn.execute(text("SHOW transaction_isolation"))).scalar_one()
        assert level == "read committed"
    async with engine.begin() as conn:
        found = await conn.execute(
            text(SETTINGS), {"names": ["statement_timeout", "transaction_isolation"]}
        )
        assert [value for _, value in found] == ["30s", "serializable"]
    await engine.dispose()


async def test_connections_of_a_restarted_server_are_replaced_unnoticed(
    engine: AsyncEngine, database_url: str
) -> None:
    async with engine.connect() as one, engine.connect() as two:
        await asyncio.gather(*(conn.execute(text("SELECT 1")) for conn in (one, two)))
    with psycopg.connect(database_url) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    async with engine.connect() as one, engine.connect() as two:
        for conn in (one, two):
            assert (await conn.execute(text("SELECT 1"))).scalar_one() == 1


async def test_a_connection_that_leaves_the_pool_costs_no_round_trip(
    engine: AsyncEngine, database_url: str
) -> None:
    """A settlement that is told of takes three of them; live, each millisecond is seen."""
    asked = "SELECT query_start FROM pg_stat_activity WHERE pid = %s"
    async with engine.connect() as conn:
        pid = (await conn.execute(text("SELECT pg_backend_pid()"))).scalar_one()
    with psycopg.connect(database_url, autocommit=True) as other:
        before = other.execute(asked, [pid]).fetchone()
        async with engine.connect():
            assert other.execute(asked, [pid]).fetchone() == before


async def test_the_connection_that_came_back_last_leaves_first(engine: AsyncEngine) -> None:
    async with AsyncExitStack() as pool:
        for _ in range(3):
            await pool.enter_async_context(engine.connect())
    pids = set()
    for _ in range(3):
        async with engine.connect() as conn:
            pids.add((await conn.execute(text("SELECT pg_backend_pid()"))).scalar_one())
    assert len(pids) == 1


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_a_postgresql_url_is_taken_as_it_is_written(scheme: str) -> None:
    url = sqlalchemy_url(f"{scheme}://me:p%40ss@db.example:5433/pay?sslmode=require")
    assert (url.drivername, url.password, url.host, url.port, url.database) == (
        "postgresql+psycopg",
        "p@ss",
        "db.example",
        5433,
        "pay",
    )
    assert url.query == {"sslmode": "require"}


@pytest.mark.parametrize(
    "url", ["mysql://me:hunter2@h/d", "hunter2", "", "postgresql+asyncpg://me:hunter2@h/d"]
)
def test_another_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match="PAYWATCH_DATABASE_URL") as refused:
        sqlalchemy_url(url)
    assert "hunter2" not in str(refused.value)

"""Fixtures for every test: a real PostgreSQL, with a fresh database from a template per test."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy.ext.asyncio import AsyncEngine

from paywatch.store.embedded import embedded_postgres
from paywatch.store.engine import create_engine, sqlalchemy_url
from paywatch.store.invariants import find_violations
from paywatch.store.migrate import migrate
from support import Shop

_numbers = count(1)

# No test is timed: how long an example takes is the machine's business.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")


def with_database(cluster: str, name: str) -> str:
    url = sqlalchemy_url(cluster).set(drivername="postgresql", database=name)
    return url.render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """A PostgreSQL server for this test process: its URL.

    Not in pytest's directory: as root the server runs as another user, and every pytest that
    starts meanwhile closes that directory to all others.
    """
    with (
        TemporaryDirectory(prefix="paywatch-") as directory,
        embedded_postgres(Path(directory) / "postgres") as url,
    ):
        with psycopg.connect(url, autocommit=True) as conn:
            # No test cuts the power; everything else is as in production.
            conn.execute("ALTER SYSTEM SET fsync = off")
            conn.execute("SELECT pg_reload_conf()")
        yield url


@pytest.fixture(scope="session")
def template(cluster: str) -> str:
    """The name of a migrated database that tests are copied from."""
    with psycopg.connect(cluster, autocommit=True) as conn:
        conn.execute("CREATE DATABASE paywatch_template")
    migrate(sqlalchemy_url(with_database(cluster, "paywatch_template")))
    return "paywatch_template"


@pytest.fixture
def empty_database_url(cluster: str) -> Iterator[str]:
    """A database without any table."""
    yield from _fresh(cluster, "template0")


@pytest.fixture
def database_url(cluster: str, template: str) -> Iterator[str]:
    """A fresh, migrated database."""
    yield from _fresh(cluster, template)


def _fresh(cluster: str, template: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    with psycopg.connect(cluster, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        yield with_database(cluster, name)
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def engine(database_url: str, request: pytest.FixtureRequest) -> AsyncIterator[AsyncEngine]:
    """The program's own connection pool on a fresh database; the invariants hold at the end."""
    engine = create_engine(database_url)
    try:
        yield engine
        if request.node.get_closest_marker("breaks_invariants") is None:
            async with engine.begin() as conn:
                assert await find_violations(conn, datetime.now(UTC)) == []
    finally:
        await engine.dispose()


@pytest.fixture
async def shop(engine: AsyncEngine) -> Shop:
    """A merchant with a watched account and an endpoint."""
    return await Shop(engine).open()

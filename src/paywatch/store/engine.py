"""Connections to PostgreSQL, with the limits that every one of them has."""

import select
from collections.abc import Mapping
from typing import Final

from sqlalchemy import URL, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from paywatch.errors import ConfigError

LIMITS: Final = {
    "timezone": "UTC",
    "synchronous_commit": "on",  # a settled payment survives a power cut
    "lock_timeout": "5s",
    "statement_timeout": "30s",
    # No transaction waits for anything but the database. One that does belongs to a process that
    # is frozen, and what it has locked another one needs.
    "idle_in_transaction_session_timeout": "5s",
    "default_transaction_isolation": "read committed",  # of what runs in autocommit
    "application_name": "paywatch",
}
LOCK_LIMITS: Final = LIMITS | {"idle_session_timeout": "3s", "statement_timeout": "3s"}
CONNECT_TIMEOUT_S: Final = 5
POOL_SIZE: Final = 10
_CONNECT: Final = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    # A server that is cut off says nothing, for ever: 25 s of silence on the wire end it.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}

# From the sixth execution on a connection PostgreSQL may take one plan for any moment, which
# expects a third of all rows and reads whole tables; with a LIMIT that looks cheap.
_OWN_PLAN: Final = text("SET LOCAL plan_cache_mode = force_custom_plan")
# What a week of a large shop takes to read must not be cut off, tried again, and cut off again.
_PATIENCE: Final = text("SET LOCAL statement_timeout = '10min'")


def sqlalchemy_url(database_url: str) -> URL:
    """Turn `postgresql://…` into the URL of SQLAlchemy's psycopg dialect.

    Raises:
        ConfigError: not a PostgreSQL URL. The message never holds the URL: it has a password.
    """
    try:
        url = make_url(database_url)
    except ArgumentError:
        url = None
    if url is None or url.drivername not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise ConfigError(
            ["PAYWATCH_DATABASE_URL: must be postgresql://user:password@host:5432/database"]
        )
    return url.set(drivername="postgresql+psycopg")


def create_engine(database_url: str, pool_size: int = POOL_SIZE) -> AsyncEngine:
    """Make a pool of connections, each with `LIMITS`.

    Transactions are SERIALIZABLE. A connection that leaves the pool is looked at, so that a
    restarted server costs a new connection and not a failed batch. The one that came back last
    leaves first: few connections know their statements sooner than many.
    """
    engine = create_async_engine(
        sqlalchemy_url(database_url),
        isolation_level="SERIALIZABLE",
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=30,
        pool_pre_ping=True,
        pool_use_lifo=True,
        connect_args=_CONNECT,
    )
    engine.sync_engine.dialect.do_ping = _is_silent  # type: ignore[method-assign] # no round trip
    return _limited(engine, LIMITS)


def _is_silent(dbapi_connection: DBAPIConnection) -> bool:
    """Whether nothing has come from the server since the connection was used.

    On an idle connection only its end is news; whatever else it is, a new connection is better.
    """
    poll = select.poll()
    poll.register(dbapi_connection.driver_connection.fileno(), select.POLLIN)
    return not poll.poll(0)


async def look_back(conn: AsyncConnection) -> None:
    """Let the rest of a transaction ask for what has happened since a moment, and take its time."""
    await conn.execute(_OWN_PLAN)
    await conn.execute(_PATIENCE)


def create_lock_engine(engine: AsyncEngine) -> AsyncEngine:
    """Make a source of connections outside the pool to the same database, to hold locks by.

    No transaction is ever open on them, and the server ends one that says nothing for
    `LOCK_LIMITS["idle_session_timeout"]`: its holder is frozen, or cut off.
    """
    alone = create_async_engine(
        engine.url, isolation_level="AUTOCOMMIT", poolclass=NullPool, connect_args=_CONNECT
    )
    return _limited(alone, LOCK_LIMITS)


def _limited(engine: AsyncEngine, limits: Mapping[str, str]) -> AsyncEngine:
    """Have the limits set on each new connection.

    By a statement, not as the connection's options: poolers refuse these, or are told to drop
    them, and then there would be no limits at all.
    """
    values = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in limits.items())

    @event.listens_for(engine.sync_engine, "connect")
    def _limit(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        transactional = not connection.autocommit
        connection.autocommit = True  # a setting goes with the transaction that made it
        connection.cursor().execute(f"SELECT {values}")
        connection.autocommit = not transactional

    return engine

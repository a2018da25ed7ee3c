"""Connections to PostgreSQL, with the limits that every one of them has."""

from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from paywatch.errors import ConfigError

LIMITS: Final = {
    "timezone": "UTC",
    "synchronous_commit": "on",  # a settled payment survives a power cut
    "lock_timeout": "5s",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "30s",
    "application_name": "paywatch",
}
CONNECT_TIMEOUT_S: Final = 5
POOL_SIZE: Final = 10


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
    """Make a pool of connections, each with `LIMITS` set by the server at its start.

    Transactions are SERIALIZABLE. A connection is asked for a sign of life when it leaves the
    pool, so that a restarted server costs a new connection and not a failed batch.
    """
    options = " ".join(f"-c {name}={value}" for name, value in LIMITS.items())
    return create_async_engine(
        sqlalchemy_url(database_url),
        isolation_level="SERIALIZABLE",
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=30,
        pool_pre_ping=True,
        connect_args={"options": options, "connect_timeout": CONNECT_TIMEOUT_S},
    )

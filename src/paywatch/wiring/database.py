"""The database of the settings: the operator's, or a cluster of our own."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import SubprocessError

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from paywatch.config import Settings
from paywatch.errors import ConfigError, StoreError
from paywatch.store import pooler
from paywatch.store.embedded import embedded_postgres
from paywatch.store.engine import create_engine, sqlalchemy_url
from paywatch.store.migrate import current_revision, migrate, require_current


@dataclass(frozen=True, slots=True)
class Database:
    """An open database.

    Attributes:
        url: has the password of the operator's database.
    """

    url: str = field(repr=False)
    engine: AsyncEngine

    async def revision(self) -> str | None:
        """Name the schema's revision; None for an empty database."""
        async with self.engine.connect() as conn:
            return await conn.run_sync(current_revision)


def embedded_directory(settings: Settings) -> Path:
    """Name the directory of the embedded cluster."""
    return settings.data_dir / "postgres"


@asynccontextmanager
async def open_database(settings: Settings, *, migrated: bool = True) -> AsyncIterator[Database]:
    """Connect; start the embedded cluster, and bring it up to date, where no URL is given.

    Args:
        settings: whose `database_url` or `data_dir`.
        migrated: whether the schema must be the program's; an embedded one is made so.

    Raises:
        StoreError: the database cannot be reached; MigrationError: its schema is another one.
        ConfigError: the embedded PostgreSQL is not installed.
    """
    async with _url(settings, migrated=migrated) as url:
        engine = create_engine(url)
        try:
            await _check(engine, migrated=migrated)
            yield Database(url, engine)
        finally:
            await engine.dispose()


@asynccontextmanager
async def _url(settings: Settings, *, migrated: bool) -> AsyncIterator[str]:
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    async with open_embedded(embedded_directory(settings), migrated=migrated) as url:
        yield url


@asynccontextmanager
async def open_embedded(directory: Path, *, migrated: bool = True) -> AsyncIterator[str]:
    """Run the embedded cluster of a directory, `migrated` or as it is, and give its URL.

    Raises:
        StoreError: it does not start. ConfigError: it is not installed.
    """
    cluster = embedded_postgres(directory)
    url = await asyncio.to_thread(_start, cluster.__enter__, directory)
    try:
        if migrated:
            await asyncio.to_thread(migrate, sqlalchemy_url(url))
        yield url
    finally:
        await asyncio.to_thread(cluster.__exit__, None, None, None)


def _start(start: Callable[[], str], directory: Path) -> str:
    try:
        return start()
    except (OSError, RuntimeError, SubprocessError) as error:
        raise StoreError(
            f"the embedded PostgreSQL in {directory} did not start ({type(error).__name__}): its"
            f" log is {directory / 'log'}; set PAYWATCH_DATA_DIR to another directory, or"
            " PAYWATCH_DATABASE_URL to a database of your own"
        ) from error


async def _check(engine: AsyncEngine, *, migrated: bool) -> None:
    with reachable(engine):
        async with engine.connect() as conn:
            if migrated:
                await conn.run_sync(require_current)


@contextmanager
def reachable(engine: AsyncEngine) -> Iterator[None]:
    """Say in words that a connection could not be had.

    Raises:
        StoreError: the database cannot be reached.
    """
    try:
        yield
    except DBAPIError as error:
        reason = (str(error.orig).strip().splitlines() or [type(error).__name__])[0]
        raise StoreError(
            f"{_place(engine.url)} cannot be reached ({reason}): start it, or correct"
            " PAYWATCH_DATABASE_URL"
        ) from error


async def require_sessions(engine: AsyncEngine) -> None:
    """Refuse a pooler that shares connections between transactions.

    Raises:
        ConfigError: there is one. StoreError: the database cannot be reached.
    """
    with reachable(engine):
        if await pooler.shares_connections(engine):
            raise ConfigError([f"PAYWATCH_DATABASE_URL: {pooler.PROBLEM}; {pooler.REMEDY}"])


def _place(url: URL) -> str:
    """Name a database without its user and password."""
    host = url.host or url.query.get("host") or "this machine"
    return f"database {url.database!r} on {host}"

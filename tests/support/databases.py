"""Databases for trials with real processes: a cluster of their own, and copies of one database."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from paywatch.store.embedded import embedded_postgres
from paywatch.store.engine import sqlalchemy_url
from paywatch.store.migrate import migrate


@dataclass(frozen=True)
class Cluster:
    """A PostgreSQL server that nobody else uses: it may be killed."""

    server: str  # its URL

    def url(self, name: str) -> str:
        url = sqlalchemy_url(self.server).set(drivername="postgresql", database=name)
        return url.render_as_string(hide_password=False)

    def create(self, name: str) -> str:
        """Make a migrated database; gives its URL."""
        self.copy("template0", name)
        migrate(sqlalchemy_url(self.url(name)))
        return self.url(name)

    def copy(self, template: str, name: str) -> str:
        """Copy a database that nobody is connected to; gives the copy's URL."""
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
        with psycopg.connect(self.server, autocommit=True) as conn:
            conn.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
        return self.url(name)

    def drop(self, name: str) -> None:
        drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
        with psycopg.connect(self.server, autocommit=True) as conn:
            conn.execute(drop)


@contextmanager
def open_cluster() -> Iterator[Cluster]:
    """Run one in a directory of its own, without waiting for disks: no trial cuts the power."""
    with (
        tempfile.TemporaryDirectory(prefix="paywatch-") as directory,
        embedded_postgres(Path(directory) / "postgres") as url,
    ):
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("ALTER SYSTEM SET fsync = off")
            conn.execute("SELECT pg_reload_conf()")
        yield Cluster(url)


@contextmanager
def away(server: str, name: str) -> Iterator[None]:
    """Within the block nobody is connected to a database, and nobody can connect to it."""
    database = sql.Identifier(name)
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(database))
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )
        try:
            yield
        finally:
            conn.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(database))

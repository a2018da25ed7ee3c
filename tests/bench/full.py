"""A PostgreSQL with two shops: one has just begun, and one has been in business for a year."""

import asyncio
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg

from bench.filling import Filling
from paywatch.store.embedded import embedded_postgres
from paywatch.store.engine import create_engine
from support import NOW, Shop
from support.databases import Cluster

# As the manual advises for a server of its own with this much to keep: as it comes, PostgreSQL
# keeps 128 MB in memory. What ANALYZE found must stay true while it is measured.
SERVER: Final = {"shared_buffers": "6GB", "max_wal_size": "16GB", "autovacuum": "off"}


@contextmanager
def full_cluster(directory: Path | None, sizes: Sequence[int]) -> Iterator[Cluster]:
    """Run a server with a database `sessions_N` for each size N; it waits for its disk.

    Args:
        directory: where it is kept, to be used again; None: nowhere.
        sizes: how many sessions are over in each.
    """
    with tempfile.TemporaryDirectory(prefix="paywatch-") as temporary:
        place = (directory or Path(temporary)) / "postgres"
        if not (place / "PG_VERSION").exists():
            with embedded_postgres(place) as url, psycopg.connect(url, autocommit=True) as conn:
                for name, value in SERVER.items():
                    conn.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        with embedded_postgres(place) as url:
            cluster = Cluster(url)
            for size in sizes:
                _require_filled(cluster, size)
            yield cluster


def _require_filled(cluster: Cluster, size: int) -> None:
    name = f"sessions_{size}"
    with psycopg.connect(cluster.server, autocommit=True) as conn:
        if conn.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
            return
        conn.execute("DROP DATABASE IF EXISTS filling")  # of a run that was broken off
        _set_fsync(conn, "off")
        url = cluster.create("filling")
        asyncio.run(_open_shop(url))
        Filling(url, size, NOW).fill()
        _set_fsync(conn, "on")
        conn.execute(f"ALTER DATABASE filling RENAME TO {name}")
        conn.execute("CHECKPOINT")
        os.sync()  # what was written before the server waited for its disk


def _set_fsync(conn: psycopg.Connection[tuple[object, ...]], value: str) -> None:
    conn.execute(f"ALTER SYSTEM SET fsync = {value}")
    conn.execute("SELECT pg_reload_conf()")


async def _open_shop(url: str) -> None:
    engine = create_engine(url)
    await Shop(engine).open()
    await engine.dispose()

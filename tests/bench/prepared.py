"""A database that is prepared once, and a copy of it for each contestant of each round."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psycopg

from paywatch.store.embedded import embedded_postgres
from support.databases import Cluster

_copies = count(1)


@contextmanager
def durable_cluster() -> Iterator[Cluster]:
    """Run a PostgreSQL as it comes: it waits for the disk at each COMMIT."""
    with (
        tempfile.TemporaryDirectory(prefix="paywatch-") as directory,
        embedded_postgres(Path(directory) / "postgres") as url,
    ):
        with psycopg.connect(url) as conn:
            for name in ("fsync", "synchronous_commit", "full_page_writes"):
                assert conn.execute(f"SHOW {name}").fetchone() == ("on",), name
        yield Cluster(url)


@dataclass(frozen=True)
class Prepared:
    """A database of a cluster that nobody is connected to.

    Attributes:
        name: of the database that is copied.
    """

    cluster: Cluster
    name: str

    @contextmanager
    def copy(self) -> Iterator[str]:
        """Lend a copy, and start from a server that has nothing left to write."""
        name = f"copy_{next(_copies)}"
        url = self.cluster.copy(self.name, name)
        with psycopg.connect(self.cluster.server, autocommit=True) as conn:
            conn.execute("CHECKPOINT")
        try:
            yield url
        finally:
            self.cluster.drop(name)

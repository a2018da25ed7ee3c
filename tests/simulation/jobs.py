"""One run of a seed, in a process and on a database of its own."""

import sys
from dataclasses import dataclass
from traceback import format_exc
from typing import Final

import psycopg
from psycopg import sql

from simulation.run import Result, simulate
from support.databases import Cluster

TEMPLATE: Final = "simulated"


def prepare(cluster: Cluster) -> None:
    """Make the template; and let the server do nothing by itself at its own times.

    Statistics that are gathered at some moment change plans, and with them what conflicts.
    """
    with psycopg.connect(cluster.server, autocommit=True) as conn:
        for setting in ("autovacuum", "jit"):
            conn.execute(sql.SQL("ALTER SYSTEM SET {} = off").format(sql.Identifier(setting)))
        conn.execute("SELECT pg_reload_conf()")
    cluster.create(TEMPLATE)


@dataclass(frozen=True)
class Job:
    """One run of a seed."""

    cluster: Cluster
    seed: int
    turn: int = 1
    steps: bool = False

    def run(self) -> Result:
        """Run it on a fresh database."""
        name = f"seed_{self.seed}_{self.turn}"
        url = self.cluster.copy(TEMPLATE, name)
        try:
            return simulate(self.seed, url, say if self.steps else lambda _: None)
        except Exception:  # noqa: BLE001 # the next seed goes on
            return Result(self.seed, "-", 0, 0, 0, 0, 0, {}, 0.0, 0.0, [format_exc()])
        finally:
            self.cluster.drop(name)


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()

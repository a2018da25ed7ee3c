"""One run of a seed, in a process and on a database of its own."""

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkContext, SpawnContext
from pathlib import Path
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
    """One run of a seed.

    Attributes:
        steps: print every line of the trace.
        traces: a directory to write the whole trace into.
    """

    cluster: Cluster
    seed: int
    turn: int = 1
    steps: bool = False
    traces: Path | None = None

    def run(self) -> Result:
        """Run it on a fresh database."""
        name = f"seed_{self.seed}_{self.turn}"
        url = self.cluster.copy(TEMPLATE, name)
        try:
            with self._shown() as show:
                return simulate(self.seed, url, show)
        except (Exception, asyncio.CancelledError):  # noqa: BLE001 # the next seed goes on
            return Result(self.seed, "-", 0, 0, 0, 0, 0, {}, 0.0, 0.0, wrong=[format_exc()])
        finally:
            self.cluster.drop(name)

    @contextmanager
    def _shown(self) -> Iterator[Callable[[str], None]]:
        if self.traces is None:
            yield say if self.steps else lambda _: None
            return
        with (self.traces / f"{self.seed}.{self.turn}").open("w") as file:
            yield lambda line: print(line, file=file)


def run_apart(context: ForkContext | SpawnContext, job: Job) -> Result:
    """Run a job in a process of its own, which ends with it.

    Raises:
        EOFError: it has ended without a result.
    """
    result, told = context.Pipe(duplex=False)
    process = context.Process(target=_run_and_tell, args=(job, told), daemon=True)
    process.start()
    told.close()
    try:
        found: Result = result.recv()
        return found
    finally:
        process.join()


def _run_and_tell(job: Job, told: Connection) -> None:
    end_well()
    told.send(job.run())


def end_well() -> None:
    """Let SIGTERM end a process as Ctrl-C does: the cluster stops, and what is stopped goes on."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()

"""How much memory a daemon takes for a backlog of a million operations, beside ten thousand."""

import asyncio
import time
from argparse import ArgumentParser, Namespace
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from subprocess import Popen
from tempfile import TemporaryDirectory
from typing import Final

import psycopg

from bench.benchmark import Benchmark
from bench.daemon import running_daemon
from bench.endless import paying, position_of
from bench.ledger import PAGE, record
from bench.machine import describe
from bench.prepared import durable_cluster
from bench.result import Comparison, Contestant, Result, Sense
from bench.rounds import by_turns
from paywatch.domain.ledger import Position
from support.databases import Cluster
from support.processes import peak_mib

FEW: Final = 10_000  # operations
GOAL_MIB: Final = 150
GOAL: Final = 1.1  # times the short one's: flat
LONGEST_S: Final = 3600.0
EVERY_S: Final = 1.0
LATEST: Final = "SELECT operation_id FROM credits ORDER BY operation_id DESC LIMIT 1"
COUNTS: Final = """
SELECT count(*) FILTER (WHERE status = 'paid'), (SELECT count(*) FROM payments),
       (SELECT count(*) FROM credits), (SELECT count(*) FROM events) FROM checkout_sessions"""

ABOUT: Final = """\
A daemon in a process of its own, with every role, is started on a backlog of payments to one
account, each for another open session. Another process writes Horizon's pages as they are asked
for. What is told is the kernel's own figure of the most memory that the daemon ever had resident
(`VmHWM`), from its start to the last commit; then every session must be paid, once.
"""


class Bench:
    """One pattern of a ledger, and databases with one open session for each payment."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self._cluster = cluster
        self._ledger = asyncio.run(record(PAGE))
        self._file = directory / "ledger"
        self._ledger.save(self._file)

    def peak_mib(self, operations: int) -> float:
        """Have a daemon settle a backlog; gives the most memory that it had."""
        url, ledger = self._cluster.create("backlog"), self._ledger
        ledger.opening(operations, days=3650, told=False).write(url)
        with (
            paying(self._file, operations) as horizon_url,
            self._daemon(url, horizon_url) as daemon,
        ):
            _wait_until_read(url, position_of(ledger.begin.ledger + 1, operations - 1))
            peak = peak_mib(daemon.pid)
        with psycopg.connect(url) as conn:
            row = conn.execute(COUNTS).fetchone()
        assert row == (operations,) * 4, f"not everything was settled once: {row} of {operations}"
        self._cluster.drop("backlog")
        return peak

    def _daemon(self, url: str, horizon_url: str) -> AbstractContextManager["Popen[bytes]"]:
        settings = {
            "PAYWATCH_HORIZON_URL": horizon_url,
            "PAYWATCH_NETWORK_PASSPHRASE": self._ledger.passphrase,
            "PAYWATCH_HORIZON_HOURLY_REQUESTS": "10000000",
        }
        return running_daemon(url, self._file.with_name("log"), settings=settings)


def _wait_until_read(url: str, last: Position) -> None:
    """Wait until the last payment is committed; asked for, for a daemon tells nobody."""
    until = time.monotonic() + LONGEST_S
    with psycopg.connect(url, autocommit=True) as conn:
        while (row := conn.execute(LATEST).fetchone()) != (last,):
            assert time.monotonic() < until, f"after {LONGEST_S:.0f} s at {row} of {last}"
            time.sleep(EVERY_S)


def add_arguments(parser: ArgumentParser) -> None:
    """Add how long the long backlog is."""
    parser.add_argument("--operations", type=int, default=1_000_000, help="of the long backlog")


def measure(options: Namespace) -> Result:
    """Have two daemons settle a short and a long backlog, one after the other."""
    with TemporaryDirectory() as directory, durable_cluster() as cluster:
        bench = Bench(cluster, Path(directory))
        sizes = {f"{size:,} operations": size for size in (FEW, options.operations)}
        figures = by_turns(
            {name: partial(bench.peak_mib, size) for name, size in sizes.items()}, options.rounds
        )
        machine = describe(cluster.server)
    few, many = sizes
    return Result(
        "memory",
        "MiB, at most",
        tuple(Contestant(name, tuple(figures[name]), name == many) for name in sizes),
        (
            Comparison(many, None, GOAL_MIB, Sense.AT_MOST),
            Comparison(many, few, GOAL, Sense.AT_MOST),
        ),
        {"page": PAGE},
        machine,
    )


BENCHMARK: Final = Benchmark(
    "memory",
    "Memory for a long backlog",
    ABOUT,
    measure,
    add_arguments,
    rounds=3,
    is_quick=False,
)

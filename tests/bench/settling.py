"""How fast a backlog is settled, from Horizon's pages over HTTP to committed rows."""

import argparse
import asyncio
import gc
import json
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench import bare
from bench.benchmark import Benchmark
from bench.catching_up import catch_up
from bench.ledger import PAGE, Recorded, record
from bench.machine import describe
from bench.polaris import open_polaris
from bench.prepared import Prepared, durable_cluster
from bench.replay import replaying
from bench.result import Comparison, Contestant, Result
from bench.rounds import by_turns
from paywatch.cli.running import run as run_as_daemon
from paywatch.domain.ledger import Credit
from paywatch.horizon.pages import place
from paywatch.horizon.records import parse_record
from paywatch.telemetry import configure_logging
from support.databases import Cluster

OURS, FLOOR, NAIVE = "paywatch", "the floor", "the naive loop"
POLARIS, POLARIS_BEST = "polaris", "polaris at best"
ABOUTS = {
    OURS: "a live stream catching up: HTTP, JSON, records, settling, COMMIT",
    FLOOR: "psycopg writes the same rows from memory: no look-up, no lock, no decision",
    NAIVE: "one serializable transaction for each operation, credits given",
    POLARIS: "django-polaris 2.6.0 as shipped",
    POLARIS_BEST: "the same without a seed to decrypt, and with an index",
}
COMPARISONS = (
    Comparison(OURS, FLOOR, goal=0.6),
    Comparison(OURS, NAIVE, goal=5),
    Comparison(OURS, POLARIS_BEST, goal=20),
    Comparison(OURS, POLARIS),
)
ABOUT = """
A ledger with one payment for each of 5,000 open sessions is served as Horizon's pages by another
process. paywatch catches up with it by the live stream's own path: it asks for pages of 200, parses
and checks them, and settles each in one transaction. Beside it, from memory, without Horizon and
without JSON:

- the floor: a bare psycopg connection that writes the rows which paywatch wrote, in the same
  transactions, by `COPY` into each table and one `UPDATE` of the sessions;
- the naive loop: one operation after the other, each in a serializable transaction: look up the
  hash, lock the session, update it, insert the payment, and what else paywatch writes of it, by a
  statement for each table.

And django-polaris 2.6.0, whose `watch_transactions` reads the same ledger from the same server by
streams, as its SDK does, on the same PostgreSQL, with a withdrawal that waits for each payment:
as shipped, and in its best legal setting. That leaves its code as it is, but has a custody
integration tell the account, so that no seed is decrypted for each payment, and gives the table an
index by account and memo. Counted is what it marks: it tells nobody and keeps no evidence. Its
start is not counted, and the clock is stopped early, before its table is full of dead rows.

All on one PostgreSQL that waits for its disk at each COMMIT, on copies of one database; polaris on
one of its own there. Behind each round every session must be paid, once, and its event written.
"""


class Bench:
    """One ledger, served; one prepared database; and the rows that settling writes there."""

    def __init__(self, ledger: Recorded, horizon_url: str, cluster: Cluster) -> None:
        self._ledger = ledger
        self._horizon_url = horizon_url
        self.operations = len(ledger.transactions)
        self.prepared = _prepare(cluster, ledger)
        pages = [json.loads(body)["_embedded"]["records"] for body in ledger.pages.values()]
        self._ends = [place(records[-1]) for records in pages if records]
        self._credits = [credit for records in pages for credit in _credits(records, ledger)]
        self._rows: list[bare.Rows] = []

    def contestants(self) -> dict[str, Callable[[], float]]:
        """What each does to a copy: operations a second."""
        with self.prepared.copy() as url:  # not counted: it brings the floor's rows
            self._catch_up(url)
            self._rows = bare.written_by_batch(url, PAGE)
        gc.freeze()  # what is held here is not the contestants' garbage
        runs: dict[str, Callable[[str], float]] = {
            OURS: self._catch_up,
            FLOOR: lambda url: bare.write_bare(url, self._rows, self._ends),
            NAIVE: lambda url: bare.settle_naively(url, self._credits),
        }
        return {name: partial(self._rate, run) for name, run in runs.items()}

    def _rate(self, run: Callable[[str], float]) -> float:
        gc.collect()
        with self.prepared.copy() as url:
            took_s = run(url)
            bare.require_all_paid(url, self.operations)
        return self.operations / took_s

    def _catch_up(self, url: str) -> float:
        return run_as_daemon(catch_up(url, self._horizon_url, self._ledger))


def _prepare(cluster: Cluster, ledger: Recorded) -> Prepared:
    """Make the database that is copied: one session for each payment."""
    ledger.opening(len(ledger.transactions)).write(cluster.create("prepared"))
    return Prepared(cluster, "prepared")


def _credits(records: Sequence[dict[str, object]], ledger: Recorded) -> list[Credit]:
    parsed = (parse_record(record, {ledger.account}) for record in records)
    return [credit for record in parsed if record is not None for credit in record.credits]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say how much is settled."""
    parser.add_argument("--pages", type=int, default=25, help=f"of {PAGE} operations each")
    what = "it is stopped after so many payments, at best after three times as many; 0: left out"
    parser.add_argument("--polaris", type=int, default=150, help=what)


def run(options: argparse.Namespace) -> Result:
    """Run it on a cluster of its own."""
    ledger = asyncio.run(record(options.pages * PAGE))
    with (
        tempfile.TemporaryDirectory() as directory,
        (Path(directory) / "log").open("w") as log,
        durable_cluster() as cluster,
    ):
        configure_logging("json", "info", stream=log)  # as in production, every line written
        ledger.save(Path(directory) / "ledger")
        with replaying(Path(directory) / "ledger") as horizon_url:
            contestants = Bench(ledger, horizon_url, cluster).contestants()
            if options.polaris:
                for name, best in ((POLARIS, False), (POLARIS_BEST, True)):
                    count = options.polaris * (3 if best else 1)
                    rival = open_polaris(cluster, ledger, horizon_url, count, best=best)
                    contestants[name] = rival.rate
            figures = by_turns(contestants, options.rounds)
        machine = describe(cluster.server)
    return Result(
        "settling",
        "operations a second",
        tuple(
            Contestant(name, tuple(figures[name]), name == OURS, ABOUTS[name]) for name in figures
        ),
        tuple(one for one in COMPARISONS if one.to in figures),
        {"operations": options.pages * PAGE, "page": PAGE},
        machine,
    )


BENCHMARK = Benchmark("settling", "Settling a backlog", ABOUT, run, add_arguments)

"""How long after Horizon has shown a payment its merchant is told."""

import argparse
import asyncio
import base64
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Final

import aiohttp
import psycopg

from bench import bare
from bench.benchmark import Benchmark
from bench.daemon import running_daemon
from bench.ledger import Recorded, record
from bench.live import showing
from bench.machine import describe
from bench.prepared import Prepared, durable_cluster
from bench.receiver import Receiver, receiving
from bench.result import Comparison, Contestant, Result, Sense
from paywatch.domain.ledger import Position
from paywatch.webhooks.sealing import Vault
from paywatch.webhooks.signing import generate_secret
from support import ENDPOINT_ID
from support.databases import Cluster
from support.site import KEY

EVENLY, BURSTS = "evenly", "in bursts"
PATTERNS: Final = {EVENLY: (1, 0.01), BURSTS: (500, 5.0)}  # payments shown at once, every s
BARE = "a COMMIT and a POST"
ABOUTS = {
    f"{EVENLY}: median": "paywatch, one payment every 10 ms",
    f"{EVENLY}: 99th": "the same: 99 of 100 are faster",
    f"{BURSTS}: median": "paywatch, 500 payments every 5 s",
    f"{BURSTS}: 99th": "the same: 99 of 100 are faster",
    BARE: "the medians of both, one after the other, nothing else under way",
}
ABOUT = """
From the moment in which Horizon writes a payment's bytes to its stream until the merchant's server
has read the webhook: parsed, settled, committed, claimed, signed, POSTed. A real daemon with all
roles in one process follows one account; Horizon and the receiver are processes of their own, all
of them on one machine, whose monotonic clock stamps both ends. 100 payments a second come in two
patterns: one every 10 ms, and, as ledgers close on the real network, 500 every 5 seconds. Horizon
ends each stream after 200 records, as it does; what it shows before there is another one waits for
a page, and that counts, too. The first two seconds of the even pattern are left out.

Beside it, in the same run: one transaction with the rows of one settlement by a bare psycopg
connection, from BEGIN until COMMIT is answered, a statement for each table; and one POST by aiohttp
to the same receiver until that has read it. Each once every 10 ms, the median of the one added to
that of the other.

PostgreSQL waits for its disk at each COMMIT. Every session must be paid, and told of once.
"""
WARM_UP: Final = 200  # payments
BARE_TIMES: Final = 300
_TOLD = """
SELECT e.id::text, s.muxed_id FROM events e JOIN checkout_sessions s ON s.id = e.subject"""


@dataclass
class Bench:
    """One receiver, and for each pattern a ledger and a database with its sessions."""

    directory: Path
    cluster: Cluster
    receiver: Receiver
    ledgers: Mapping[str, Recorded]
    figures: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in ABOUTS})

    def prepare(self) -> None:
        """Make the databases, and keep the ledgers in files for Horizon's process."""
        for number, ledger in enumerate(self.ledgers.values()):
            name = f"prepared_{number}"
            url = self.cluster.create(name)
            ledger.opening(len(ledger.transactions)).write(url)
            with psycopg.connect(url) as conn:
                sealed = Vault(base64.b64decode(KEY)).seal(generate_secret(), ENDPOINT_ID)
                told = [f"{self.receiver.url}/webhooks", sealed]
                conn.execute("UPDATE endpoints SET url = %s, sealed_secret = %s", told)
            ledger.save(self.directory / name)

    def run_round(self) -> None:
        """Measure each pattern, and behind it what is beside."""
        for number, pattern in enumerate(PATTERNS):
            with Prepared(self.cluster, f"prepared_{number}").copy() as url:
                delays = self._live(pattern, url, self.directory / f"prepared_{number}")
                if pattern == EVENLY:
                    delays = delays[WARM_UP:]
                    rows = _rows_one_by_one(url)[:BARE_TIMES]
            self.figures[f"{pattern}: median"].append(median(delays))
            self.figures[f"{pattern}: 99th"].append(quantiles(delays, n=100)[-1])
        ends = [Position(int(token)) for token, _ in self.ledgers[EVENLY].transactions]
        with Prepared(self.cluster, "prepared_0").copy() as url:
            commit = median(_commits(url, rows, ends))
        body = bytes(rows[0]["events"][0][4])
        post = median(asyncio.run(_posts(self.receiver, body)))
        self.figures[BARE].append(commit + post)

    def _live(self, pattern: str, url: str, file: Path) -> list[float]:
        """Follow one ledger; gives the milliseconds of each payment, in order."""
        ledger = self.ledgers[pattern]
        count = len(ledger.transactions)
        with showing(file, *PATTERNS[pattern]) as horizon:
            settings = {
                "PAYWATCH_HORIZON_URL": horizon.url,
                "PAYWATCH_NETWORK_PASSPHRASE": ledger.passphrase,
                "PAYWATCH_HORIZON_HOURLY_REQUESTS": "10000000",
            }
            with running_daemon(url, self.directory / "log", settings=settings):
                came = dict(self.receiver.take(count))
                shown_at = horizon.shown_at()
        bare.require_all_paid(url, count)
        with psycopg.connect(url) as conn:
            told = {number: came[id_] for id_, number in conn.execute(_TOLD)}
        return [1000 * (told[number] - at) for number, at in enumerate(shown_at, 1)]


def _rows_one_by_one(url: str) -> list[bare.Rows]:
    """What was written for each credit: dispatching has changed the order of the deliveries."""
    [rows] = bare.written_by_batch(url, 10**9)
    payments = {row[0]: row for row in rows["payments"]}
    sessions = {row[0]: row for row in rows["checkout_sessions"]}
    transitions = {row[0]: row for row in rows["session_transitions"]}
    events = {row[3]: row for row in rows["events"]}
    deliveries = {row[0]: row for row in rows["deliveries"]}
    return [
        {
            "payments": [payments[credit[6]]],
            "credits": [credit],
            "checkout_sessions": [sessions[credit[13]]],
            "session_transitions": [transitions[credit[13]]],
            "events": [events[credit[13]]],
            "deliveries": [deliveries[events[credit[13]][0]]],
        }
        for credit in rows["credits"]
    ]


def _commits(url: str, rows: Sequence[bare.Rows], ends: Sequence[Position]) -> list[float]:
    """The milliseconds of each COMMIT, from BEGIN on."""
    found = []
    with psycopg.connect(url) as conn:
        for batch, end in zip(rows, ends, strict=False):
            began = time.monotonic()
            bare.write_batch(conn, batch, end)
            found.append(1000 * (time.monotonic() - began))
            time.sleep(0.01)
    return found


async def _posts(receiver: Receiver, body: bytes) -> list[float]:
    """The milliseconds of each POST, until the receiver has read it."""
    began: dict[str, float] = {}
    async with aiohttp.ClientSession() as http:
        for number in map(str, range(BARE_TIMES)):
            headers = {"Content-Type": "application/json", "webhook-id": number}
            began[number] = time.monotonic()
            async with http.post(f"{receiver.url}/bare", data=body, headers=headers) as response:
                await response.read()
            await asyncio.sleep(0.01)
    return [1000 * (at - began[number]) for number, at in receiver.take(BARE_TIMES)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say for how long."""
    parser.add_argument("--seconds", type=int, default=20, help="of each pattern, even")


def run(options: argparse.Namespace) -> Result:
    """Run it on a cluster of its own."""
    payments = 100 * options.seconds
    ledgers = {
        name: asyncio.run(record(payments, at_once)) for name, (at_once, _) in PATTERNS.items()
    }
    with (
        tempfile.TemporaryDirectory() as directory,
        durable_cluster() as cluster,
        receiving() as receiver,
    ):
        bench = Bench(Path(directory), cluster, receiver, ledgers)
        bench.prepare()
        for _ in range(options.rounds):
            bench.run_round()
        machine = describe(cluster.server)
    return Result(
        "latency",
        "milliseconds",
        tuple(
            Contestant(name, tuple(bench.figures[name]), name != BARE, about)
            for name, about in ABOUTS.items()
        ),
        (
            Comparison(f"{EVENLY}: median", BARE, 3, Sense.AT_MOST),
            Comparison(f"{EVENLY}: 99th", None, 100, Sense.AT_MOST),
            Comparison(f"{BURSTS}: median", BARE),
            Comparison(f"{BURSTS}: 99th", BARE),
        ),
        {"payments": payments, "a_second": 100},
        machine,
    )


BENCHMARK = Benchmark("latency", "Live latency", ABOUT, run, add_arguments, rounds=3)

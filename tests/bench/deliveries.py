"""How many webhooks one process delivers a second."""

import argparse
import asyncio
import base64
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psycopg

from bench.benchmark import Benchmark
from bench.daemon import running_daemon
from bench.machine import describe
from bench.prepared import Prepared, durable_cluster
from bench.receiver import Receiver, receiving
from bench.result import Comparison, Contestant, Result
from bench.rival import python_of
from bench.rounds import by_turns
from paywatch.domain.events import session_paid
from paywatch.domain.settlement import decide
from paywatch.store.engine import create_engine
from paywatch.webhooks.sealing import Vault
from support import make_credit, make_session
from support.outbox import enqueue, merchant
from support.site import KEY

OURS, LOOP, PROCRASTINATE = "paywatch", "the bare loop", "procrastinate"
ABOUTS = {
    OURS: "the daemon with the role dispatch: claimed, signed, POSTed, recorded",
    LOOP: "aiohttp POSTs the same body, with the same concurrency, and remembers nothing",
    PROCRASTINATE: "a worker of procrastinate 3.10.0 that makes the same POSTs",
}
ABOUT = """
10,000 events wait in the outbox, for 16 endpoints. A real daemon with the role `dispatch` and its
default settings (500 attempts at once, 32 to one endpoint) delivers them to a receiver in another
process: it claims them under leases, signs each, POSTs it and records the attempt. A figure counts
the POSTs from the first that came to the last. Beside it:

- the bare loop: 500 tasks on one aiohttp session, which POST the same body to the same receiver,
  without a database, a signature or a limit on where a POST may go;
- procrastinate, a job queue on PostgreSQL, in an environment of its own: one worker process whose
  jobs make the same POST by aiohttp, in the same PostgreSQL. It has 50 jobs at once and 16
  connections, the best of those tried from 10 to 500 and from 4 to 40; a fifth as many jobs wait
  for it.

PostgreSQL waits for its disk at each COMMIT. Behind each round every delivery must be recorded as
delivered, by one attempt, and every POST must have come once.
"""
CONCURRENCY: Final = 500
ENDPOINTS: Final = 16
WORKER: Final = ("50", "16")  # jobs at once, connections
SHARE: Final = 5  # one of so many is a job of procrastinate's: it is that much slower, or more
_DELIVERED = """
SELECT count(*) FILTER (WHERE state = 'delivered'), count(*) FILTER (WHERE lease_token IS NULL),
       (SELECT count(*) FROM attempts) FROM deliveries"""
_DONE = "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'"


@dataclass(frozen=True)
class Bench:
    """One cluster with both outboxes prepared, and one receiver."""

    receiver: Receiver
    ours: Prepared
    theirs: Prepared
    body: Path
    count: int

    def contestants(self) -> dict[str, Callable[[], float]]:
        """Give each one's POSTs a second."""
        return {OURS: self._dispatch, LOOP: self._loop, PROCRASTINATE: self._work}

    def _dispatch(self) -> float:
        with self.ours.copy() as url:
            with running_daemon(url, self.body.with_name("log"), "--role", "dispatch"):
                rate = self._rate(self.count)
            _require(url, _DELIVERED, (self.count,) * 3)
        return rate

    def _loop(self) -> float:
        numbers = [str(number) for number in (self.count, ENDPOINTS, CONCURRENCY)]
        command = ["-m", "bench.posting", self.receiver.url, str(self.body), *numbers]
        with _running(sys.executable, *command):
            return self._rate(self.count)

    def _work(self) -> float:
        jobs = self.count // SHARE
        with self.theirs.copy() as url:
            with _running(*_worker("work"), url, *WORKER):
                rate = self._rate(jobs)
            _require(url, _DONE, (jobs,))
        return rate

    def _rate(self, count: int) -> float:
        came = self.receiver.take(count)
        assert len({id_ for id_, _ in came}) == len(came) == count, "a POST came twice"
        return count / (came[-1][1] - came[0][1])


@contextmanager
def _running(*command: str) -> Iterator[None]:
    """Run a process that ends by itself."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:  # noqa: S603 - our own command
        yield
        assert process.wait(60) == 0, f"{command[:3]} has failed"


def _require(url: str, question: str, answer: tuple[int, ...]) -> None:
    """Refuse the figure of a run that did not do its work."""
    with psycopg.connect(url) as conn:
        found = conn.execute(question).fetchone()
    assert found == answer, f"not everything was delivered: {found} of {answer}"


def _worker(verb: str) -> tuple[str, ...]:
    script = Path(__file__).with_name("procrastinate_worker.py")
    return str(python_of("procrastinate")), str(script), verb


async def _fill(database: str, url: str, body: bytes, count: int) -> None:
    """Write the events and their deliveries, due now."""
    engine, vault, now = create_engine(database), Vault(base64.b64decode(KEY)), datetime.now(UTC)
    for number in range(ENDPOINTS):
        told = await merchant(engine, vault, f"{url}/{number}", now)
        share = len(range(number, count, ENDPOINTS))
        await enqueue(engine, told, now, share, body)
    await engine.dispose()


def _payload() -> bytes:
    """What a merchant is told of a paid session."""
    credit = make_credit()
    return session_paid(decide(make_session(), [credit]).session, credit).payload


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say how many are delivered."""
    parser.add_argument("--events", type=int, default=10_000, help="that wait in the outbox")


def run(options: argparse.Namespace) -> Result:
    """Run it on a cluster of its own."""
    with (
        tempfile.TemporaryDirectory() as directory,
        durable_cluster() as cluster,
        receiving() as receiver,
    ):
        body = Path(directory) / "body"
        body.write_bytes(_payload())
        ours, theirs = cluster.create("prepared"), cluster.url("queue")
        asyncio.run(_fill(ours, receiver.url, body.read_bytes(), options.events))
        cluster.copy("prepared", "queue")
        numbers = (str(options.events // SHARE), str(ENDPOINTS))
        with _running(*_worker("defer"), theirs, receiver.url, str(body), *numbers):
            pass
        for url in (ours, theirs):
            _analyze(url)
        prepared = (Prepared(cluster, "prepared"), Prepared(cluster, "queue"))
        bench = Bench(receiver, *prepared, body, options.events)
        figures = by_turns(bench.contestants(), options.rounds)
        machine = describe(cluster.server)
    return _result(figures, options, machine)


def _result(
    figures: dict[str, list[float]], options: argparse.Namespace, machine: dict[str, int | str]
) -> Result:
    return Result(
        "deliveries",
        "deliveries a second",
        tuple(
            Contestant(name, tuple(figures[name]), name == OURS, ABOUTS[name]) for name in ABOUTS
        ),
        (Comparison(OURS, LOOP, goal=0.5), Comparison(OURS, PROCRASTINATE, goal=5)),
        {"events": options.events, "endpoints": ENDPOINTS, "at_once": CONCURRENCY},
        machine,
    )


def _analyze(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("VACUUM ANALYZE")


BENCHMARK = Benchmark("deliveries", "Delivering webhooks", ABOUT, run, add_arguments)

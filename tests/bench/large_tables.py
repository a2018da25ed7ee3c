"""What a settlement costs when the tables hold a year's sessions, beside a shop that just began."""

import asyncio
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Final
from uuid import UUID

import psycopg

from bench.benchmark import Benchmark
from bench.filling import Filling
from bench.full import SERVER, full_cluster
from bench.machine import describe
from bench.result import Comparison, Contestant, Result, Sense
from bench.rounds import by_turns
from paywatch.domain.ledger import Batch, Memo, Position
from paywatch.service.settle import Order, Settler
from paywatch.store.engine import create_engine
from paywatch.telemetry import Metrics, configure_logging
from support import NOW, Shop, make_batch, make_credit

SMALL: Final = 10_000  # sessions
PAGE: Final = 200
GOAL: Final = 1.3
FIRST_LEDGER: Final = 2**24  # behind all of `bench.filling`
STATE: Final = """
SELECT position, (SELECT count(*) FROM checkout_sessions WHERE status = 'paid' AND paid_at = %s)
  FROM cursors WHERE stream LIKE 'live:%%'"""

# The indexes whose keys are random: a settlement reads or writes a page of each, anywhere in it.
RANDOM_KEYS: Final = {
    "memo": "checkout_sessions",
    "muxed_id": "checkout_sessions",
    "tx_hash": "payments",
    "id": "events",
    "event_id": "deliveries",
}

ABOUT: Final = """\
Two databases of one PostgreSQL: a shop that has had 10,000 sessions, and one that has had ten
million within a year, most of them paid, with all that belongs to them: credits, payments, events,
deliveries, attempts, transitions. Their keys are as random as the program's own: memos of 63 random
bits, hashes of transactions, derived ids of events. In both, new sessions are open, and they are
paid in random order, in batches of 200, each settled and committed.

PostgreSQL has 6 GB of memory for its buffers, and room for 16 GB of its log between checkpoints; it
waits for the disk at each COMMIT. Before the rounds the indexes with random keys are read once,
then there is a checkpoint, and a round that is not counted. Behind a checkpoint each page that is
changed is written whole to the log, once: in small tables the same few pages are changed again and
again, in large ones each settlement changes others. With a checkpoint before each round the ratio
is larger.
"""


class Sales:
    """Open sessions in one of the databases, and their payments, a round at a time.

    Args:
        url: the database's.
        operations: payments of a round.
        rounds: how many rounds there can be.
        seed: draws memos, and the order in which sessions are paid.
    """

    def __init__(self, url: str, operations: int, rounds: int, seed: int) -> None:
        self._url = url
        self._operations = operations
        self._position, self._paid = self._state()
        rng = Random(f"{seed} {self._position}")
        # Twice as many as will be paid: those around them stay as they are.
        keys = [(_new_id(rng), rng.getrandbits(63)) for _ in range(2 * operations * rounds)]
        Filling(url, 0, NOW).open(keys)
        rng.shuffle(keys)
        self._memos = iter([memo for _, memo in keys])

    def settle(self) -> float:
        """Settle a round; gives microseconds for each payment.

        Raises:
            AssertionError: not every one of them has paid its session.
        """
        took_s = asyncio.run(self._settle(list(self._batches())))
        self._position, paid = self._state()
        assert paid == self._paid + self._operations, f"{paid - self._paid} sessions were paid"
        self._paid = paid
        return took_s / self._operations * 1e6

    async def _settle(self, batches: list[Batch]) -> float:
        engine = create_engine(self._url)
        shop = Shop(engine)
        settler = Settler(engine, Metrics(), lambda: NOW, Random(1))
        claim = await shop.claim()
        began = time.perf_counter()
        for batch in batches:
            await settler.settle(Order(batch, by=claim.stream, claim=claim))
        took_s = time.perf_counter() - began
        await engine.dispose()
        return took_s

    def _batches(self) -> Iterator[Batch]:
        """Payments of the next sessions, in ledgers behind all that the database has."""
        after = self._position
        for _ in range(self._operations // PAGE):
            ledger = max(after.ledger, FIRST_LEDGER) + 1
            batch = make_batch(
                [
                    make_credit(ledger=ledger, tx=tx + 1, memo=Memo.of_id(memo), closed_at=NOW)
                    for tx, memo in enumerate(islice(self._memos, PAGE))
                ],
                after,
            )
            yield replace(batch, closed_at=NOW)
            after = batch.upto

    def _state(self) -> tuple[Position, int]:
        """The cursor, and how many sessions these rounds have paid."""
        with psycopg.connect(self._url) as conn:
            row = conn.execute(STATE, [NOW]).fetchone()
        assert row is not None
        return Position(row[0]), row[1]


def _new_id(rng: Random) -> UUID:
    """Make a UUIDv7, as the program does."""
    milliseconds = int(NOW.timestamp() * 1000)
    high = milliseconds << 16 | 7 << 12 | rng.getrandbits(12)
    return UUID(int=high << 64 | 2 << 62 | rng.getrandbits(62))


def _warm_up(url: str) -> None:
    """Have PostgreSQL read the indexes into its buffers, as they are after a day's work."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("SET enable_seqscan = off")
        conn.execute("SET max_parallel_workers_per_gather = 0")
        for column, table in RANDOM_KEYS.items():
            conn.execute(f"SELECT count({column}) FROM {table}")
        conn.execute("CHECKPOINT")


def add_arguments(parser: ArgumentParser) -> None:
    """Add how full the tables are, and where they are kept."""
    parser.add_argument("--rows", type=int, default=10_000_000, help="sessions in the large tables")
    parser.add_argument("--operations", type=int, default=12_000, help="settled in each round")
    parser.add_argument("--directory", type=Path, help="keep the server there, for another run")
    parser.add_argument("--seed", type=int, default=20_261_121)


def measure(options: Namespace) -> Result:
    """Fill both, and settle in both by turns."""
    with (
        tempfile.TemporaryFile("w") as log,
        full_cluster(options.directory, (SMALL, options.rows)) as cluster,
    ):
        configure_logging("json", "info", stream=log)  # as in production, every line written
        sizes = {_name(size): cluster.url(f"sessions_{size}") for size in (SMALL, options.rows)}
        rounds = options.rounds + 1
        sales = {
            name: Sales(url, options.operations, rounds, options.seed)
            for name, url in sizes.items()
        }
        for url in sizes.values():
            _warm_up(url)
        for each in sales.values():
            each.settle()
        figures = by_turns({name: each.settle for name, each in sales.items()}, options.rounds)
        machine = describe(cluster.server)
    few, many = sales
    return Result(
        "large_tables",
        "microseconds for each settlement",
        tuple(Contestant(name, tuple(figures[name]), name == many) for name in sales),
        (Comparison(many, few, GOAL, Sense.AT_MOST),),
        {"operations": options.operations, "batch": PAGE, **SERVER, "seed": options.seed},
        machine,
    )


def _name(sessions: int) -> str:
    return f"{sessions:,} sessions"


BENCHMARK: Final = Benchmark(
    "large_tables",
    "Settling into large tables",
    ABOUT,
    measure,
    add_arguments,
    rounds=7,
    is_quick=False,
)

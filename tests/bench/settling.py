"""How fast the real settle path is, beside a floor and a naive loop, in one run on one machine.

* paywatch: `Settler.settle`, batches of 200 records, each one transaction.
* floor: the rows that paywatch wrote, written again in the same transactions by a bare psycopg
  connection: COPY into each table, one UPDATE of the sessions, no look-up, no lock, no decision.
* naive: one serializable transaction per operation: look up, lock, insert, commit.

Every contestant starts from a copy of one database; rounds are interleaved. What counts is the
ratio; the figures themselves are this machine's.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import psycopg
from psycopg import sql

from bench.benchmark import Benchmark
from bench.machine import describe
from bench.result import Comparison, Contestant, Result
from bench.rounds import by_turns
from paywatch.domain.events import session_paid
from paywatch.domain.ledger import Batch, Credit, Memo
from paywatch.domain.settlement import decide_batch
from paywatch.service.settle import Order, Settler
from paywatch.store.embedded import embedded_postgres
from paywatch.store.engine import create_engine, sqlalchemy_url
from paywatch.store.migrate import migrate
from paywatch.telemetry import Metrics, configure_logging
from support import MERCHANT_ID, NOW, START, Shop, make_batch, make_credit, make_session

# The tables that settling writes, parents first, with the columns that are not generated.
WRITTEN = {
    "payments": "tx_hash, inner_tx_hash, ledger, closed_at, payer, memo_type, memo, recorded_at",
    "credits": "operation_id, change_index, account, muxed_id, asset, amount, tx_hash,"
    " inner_tx_hash, payer, memo_type, memo, closed_at, outcome, session_id, recorded_at",
    "session_transitions": "session_id, before, after, cause, by, operation_id, change_index,"
    " recorded_at",
    "events": "id, merchant_id, type, subject, payload, occurred_at, recorded_at",
    "deliveries": "event_id, endpoint_id, due_at",
}
Rows = dict[str, list[tuple[Any, ...]]]

CONTESTANTS = {
    "paywatch": "the real settling, batch by batch",
    "the floor": "psycopg writes the same rows: no look-up, no lock, no decision",
    "the naive loop": "one serializable transaction for each operation",
}
ABOUT = """
Batches of 200 operations, each paying a session of its own, are settled from memory. Beside it, a
bare psycopg connection writes the same rows in the same transactions, by `COPY` and one `UPDATE`;
and a naive loop looks up, locks, inserts and commits one operation after the other. What is settled
is checked afterwards.
"""


class Bench:
    """One cluster, one prepared database, and the batches to settle on copies of it."""

    def __init__(self, cluster: str, batches: int, size: int) -> None:
        self.cluster = cluster
        self.operations = batches * size
        self.batches = list(_batches(batches, size))
        self._copies = 0

    def url(self, name: str) -> str:
        url = sqlalchemy_url(self.cluster).set(drivername="postgresql", database=name)
        return url.render_as_string(hide_password=False)

    def prepare(self) -> None:
        """Make the database that is copied: migrated, with one session per operation."""
        with psycopg.connect(self.cluster, autocommit=True) as conn:
            conn.execute("CREATE DATABASE prepared")
        migrate(sqlalchemy_url(self.url("prepared")))
        asyncio.run(self._open_shop())
        with psycopg.connect(self.url("prepared"), autocommit=True) as conn:
            conn.execute(
                """
INSERT INTO checkout_sessions (id, merchant_id, account, memo_type, memo, muxed_id, asset, amount,
       expires_at, created_at, updated_at, opened_position, reference, least_amount, accept_until,
       text_for_id)
SELECT gen_random_uuid(), merchant_id, account, 'id', int8send(n), n, 'native', 100,
       %(now)s + interval '1 day', %(now)s, %(now)s, 0, 'order-' || n, 100,
       %(now)s + interval '1 day', true
  FROM accounts, generate_series(1, %(operations)s) n""",
                {"now": NOW, "operations": self.operations},
            )
            conn.execute("VACUUM ANALYZE")

    async def _open_shop(self) -> None:
        engine = create_engine(self.url("prepared"))
        await Shop(engine).open()
        await engine.dispose()

    def copy(self) -> str:
        """Copy the prepared database, and start each contestant from a quiet server."""
        self._copies += 1
        name = f"copy_{self._copies}"
        with psycopg.connect(self.cluster, autocommit=True) as conn:
            conn.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE prepared").format(sql.Identifier(name))
            )
            conn.execute("CHECKPOINT")
        return self.url(name)

    def paywatch(self, url: str) -> float:
        """Seconds for all batches by the real settle path."""
        return asyncio.run(self._settle(url))

    async def _settle(self, url: str) -> float:
        engine = create_engine(url)
        shop = Shop(engine)
        settler = Settler(engine, Metrics(), lambda: NOW, Random(1))
        claim = await shop.claim()
        began = time.perf_counter()
        for batch in self.batches:
            await settler.settle(Order(batch, by=claim.stream, claim=claim))
        took = time.perf_counter() - began
        await engine.dispose()
        return took

    def floor(self, url: str, written: list[Rows]) -> float:
        """Seconds for a bare writer of the same rows in the same transactions."""
        with psycopg.connect(url) as conn:
            began = time.perf_counter()
            for batch, rows in zip(self.batches, written, strict=True):
                _write_bare(conn, batch, rows)
            return time.perf_counter() - began

    def naive(self, url: str) -> float:
        """Seconds for one transaction per operation."""
        with psycopg.connect(url) as conn:
            conn.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
            began = time.perf_counter()
            for batch in self.batches:
                for record in batch.records:
                    for credit in record.credits:
                        _settle_naively(conn, credit)
            return time.perf_counter() - began

    def written(self, url: str) -> list[Rows]:
        """Read back what paywatch wrote, by batch: every table in the order of insertion."""
        with psycopg.connect(url) as conn:
            tables = {
                table: conn.execute(f"SELECT {columns} FROM {table} ORDER BY ctid").fetchall()
                for table, columns in WRITTEN.items()
            }
            tables["checkout_sessions"] = conn.execute(
                """
SELECT s.id, s.received, s.status, s.paid_how, s.paid_at FROM credits c
  JOIN checkout_sessions s ON s.id = c.session_id ORDER BY c.operation_id"""
            ).fetchall()
        size = self.operations // len(self.batches)
        return [
            {name: rows[size * n : size * (n + 1)] for name, rows in tables.items()}
            for n in range(len(self.batches))
        ]

    def checked(self, url: str) -> None:
        """Refuse a figure of a run that did not pay every session and tell of it."""
        with psycopg.connect(url) as conn:
            row = conn.execute(
                """
SELECT (SELECT count(*) FROM checkout_sessions WHERE status = 'paid'),
       (SELECT count(*) FROM payments), (SELECT count(*) FROM credits),
       (SELECT count(*) FROM events), (SELECT count(*) FROM deliveries)"""
            ).fetchone()
        if row != (self.operations,) * 5:
            raise AssertionError(f"not everything was settled: {row}")


def _batches(number: int, size: int) -> Iterator[Batch]:
    after = START
    for n in range(number):
        credits_ = [
            make_credit(ledger=1001 + n, tx=i + 1, memo=Memo.of_id(n * size + i + 1))
            for i in range(size)
        ]
        batch = make_batch(credits_, after)
        yield batch
        after = batch.upto


def _write_bare(conn: psycopg.Connection[Any], batch: Batch, rows: Rows) -> None:
    with conn.transaction(), conn.cursor() as cursor:
        cursor.execute("UPDATE cursors SET position = %s", [int(batch.upto)])
        cursor.execute(
            """
UPDATE checkout_sessions s SET received = r.received, status = r.status, paid_how = r.paid_how,
       paid_at = r.paid_at, updated_at = %s
  FROM unnest(%s::uuid[], %s::bigint[], %s::text[], %s::text[], %s::timestamptz[])
       AS r(id, received, status, paid_how, paid_at)
 WHERE s.id = r.id""",
            [NOW, *map(list, zip(*rows["checkout_sessions"], strict=True))],
        )
        for table, columns in WRITTEN.items():
            with cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
                for row in rows[table]:
                    copy.write_row(row)


def _settle_naively(conn: psycopg.Connection[Any], credit: Credit) -> None:
    """What a careful programmer writes first: everything by hand, one operation at a time."""
    with conn.transaction():
        seen = conn.execute(
            "SELECT 1 FROM payments WHERE tx_hash = %s", [bytes.fromhex(credit.tx_hash)]
        ).fetchone()
        found = conn.execute(
            "SELECT id, muxed_id, amount FROM checkout_sessions"
            " WHERE account = %s AND memo_type = %s AND memo = %s FOR UPDATE",
            [credit.account, credit.memo.type, credit.memo.value],
        ).fetchone()
        if seen is not None or found is None:
            return
        session = make_session(found[1], id=found[0], merchant_id=MERCHANT_ID, amount=found[2])
        [settlement] = decide_batch([session], [credit]).settlements
        event = session_paid(settlement.session, credit)
        tx_hash, memo = bytes.fromhex(credit.tx_hash), credit.memo
        conn.execute(
            f"INSERT INTO payments ({WRITTEN['payments']}) VALUES (%s,%s,%s,%s,%s,%s,%s,%s)",
            [tx_hash, None, credit.operation_id.ledger, credit.closed_at, credit.payer, memo.type,
             memo.value, NOW],
        )  # fmt: skip
        conn.execute(
            f"INSERT INTO credits ({WRITTEN['credits']})"
            " VALUES (%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s)",
            [int(credit.operation_id), 0, credit.account, None, "native", credit.amount, tx_hash,
             None, credit.payer, memo.type, memo.value, credit.closed_at, "applied", session.id,
             NOW],
        )  # fmt: skip
        conn.execute(
            "UPDATE checkout_sessions SET received = %s, status = 'paid', paid_how = 'exact',"
            " paid_at = %s, updated_at = %s WHERE id = %s",
            [credit.amount, credit.closed_at, NOW, session.id],
        )
        conn.execute(
            f"INSERT INTO session_transitions ({WRITTEN['session_transitions']})"
            " VALUES (%s,%s,%s,%s,%s,%s,%s,%s)",
            [session.id, "pending", "paid", "credited_in_full", "naive", int(credit.operation_id),
             0, NOW],
        )  # fmt: skip
        conn.execute(
            f"INSERT INTO events ({WRITTEN['events']}) VALUES (%s,%s,%s,%s,%s,%s,%s)",
            [event.id, MERCHANT_ID, event.type, session.id, event.payload, event.occurred_at, NOW],
        )
        conn.execute(
            "INSERT INTO deliveries (event_id, endpoint_id, due_at)"
            " SELECT %s, id, %s FROM endpoints WHERE merchant_id = %s",
            [event.id, NOW, MERCHANT_ID],
        )
        conn.execute("UPDATE cursors SET position = %s", [int(credit.operation_id)])


def measure(bench: Bench, rounds: int) -> dict[str, list[float]]:
    """Operations a second of each contestant, by round."""
    source = bench.copy()
    bench.paywatch(source)  # not counted: it warms the caches and brings the floor's rows
    bench.checked(source)
    written = bench.written(source)
    contestants: dict[str, Callable[[str], float]] = {
        "paywatch": bench.paywatch,
        "the floor": lambda url: bench.floor(url, written),
        "the naive loop": bench.naive,
    }

    def once(run_on: Callable[[str], float]) -> float:
        url = bench.copy()
        rate = bench.operations / run_on(url)
        bench.checked(url)
        return rate

    return by_turns({name: partial(once, one) for name, one in contestants.items()}, rounds)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say how much is settled."""
    parser.add_argument("--batches", type=int, default=25)
    parser.add_argument("--size", type=int, default=200, help="operations in a batch")


def run(options: argparse.Namespace) -> Result:
    """Run it on a cluster of its own."""
    with (
        tempfile.TemporaryDirectory() as directory,
        (Path(directory) / "log").open("w") as log,
        embedded_postgres(Path(directory) / "postgres") as cluster,
    ):
        configure_logging("json", "info", stream=log)  # as in production, every line written
        bench = Bench(cluster, options.batches, options.size)
        bench.prepare()
        figures = measure(bench, options.rounds)
        machine = describe(cluster)
    return Result(
        "settling",
        "operations a second",
        tuple(
            Contestant(name, tuple(figures[name]), name == "paywatch", about)
            for name, about in CONTESTANTS.items()
        ),
        (
            Comparison("paywatch", "the floor", goal=0.6),
            Comparison("paywatch", "the naive loop", goal=5),
        ),
        {"operations": bench.operations, "batch": options.size},
        machine,
    )


BENCHMARK = Benchmark("settling", "Settling a backlog", ABOUT, run, add_arguments)

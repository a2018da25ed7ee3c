"""One seed, from an empty database to a result: the same for the same seed, bit for bit."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final

import psycopg
import structlog
from psycopg import sql

from simulation import loop as simulated
from simulation.book import Diary
from simulation.loop import START_S, SimulatedLoop
from simulation.opening import Kernel, open_world
from simulation.plan import Plan, draw
from simulation.postgres import Gate
from simulation.process import current
from simulation.trace import Trace
from simulation.wire import Wire
from simulation.world import World

SLOWEST_S: Final = 0.01  # a round trip to the database
SHOWN: Final = 60  # lines of the trace's tail
_TABLES: Final = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = 'public' AND c.relkind = 'r' ORDER BY c.relname"""


_ROWS: Final = sql.SQL('SELECT t::text FROM {} t ORDER BY t::text COLLATE "C"')


@dataclass(frozen=True)
class Result:
    """What one seed came to."""

    seed: int
    digest: str
    lines: int
    looks: int
    payments: int
    sessions: int
    webhooks: int
    met: dict[str, int]  # faults, by kind
    virtual_s: float
    real_s: float
    came: dict[str, int] = field(default_factory=dict)  # sessions and credits, by what became
    wrong: list[str] = field(default_factory=list)
    tail: list[str] = field(default_factory=list)
    plan: str = ""

    @property
    def line(self) -> str:
        """One line of text."""
        met = " ".join(f"{kind}={count}" for kind, count in sorted(self.met.items()))
        verdict = "WRONG" if self.wrong else "ok"
        return (
            f"seed {self.seed}: {verdict} {self.digest} {self.lines} steps, {self.looks} checks,"
            f" {self.sessions} sessions, {self.payments} credits, {self.webhooks} webhooks,"
            f" {self.virtual_s:.0f} s in {self.real_s:.1f} s; {met or 'no faults'}"
        )


def simulate(seed: int, url: str, show: Callable[[str], None] = lambda _: None) -> Result:
    """Run a seed on an empty, migrated database."""
    plan, began = draw(seed), time.monotonic()
    show(plan.describe())
    with psycopg.connect(url, autocommit=True) as conn:
        result = simulated.run(lambda loop: _play(plan, loop, url, conn, show))
    return replace(result, real_s=time.monotonic() - began)


async def _play(
    plan: Plan,
    loop: SimulatedLoop,
    url: str,
    conn: psycopg.Connection[Any],
    show: Callable[[str], None],
) -> Result:
    trace = Trace(loop.time, show)
    diary = Diary(trace)
    wire = loop.wire = Wire(loop, Random(f"{plan.seed}/wire"))
    latency = Random(f"{plan.seed}/latency")
    gate = Gate(loop, conn, trace, lambda: latency.uniform(0.0002, SLOWEST_S))
    reaper = loop.create_task(gate.reap())
    loop.set_exception_handler(lambda _, context: _note_loose(diary, context))
    with gate.installed(), _logs(diary):
        async with open_world(plan, Kernel(loop, gate, wire, diary, url, conn)) as world:
            await world.run()
        reaper.cancel()
        return _result(world, conn)


_CAME: Final = """
SELECT 'session ' || concat_ws(' ', status, paid_how), count(*) FROM checkout_sessions GROUP BY 1
UNION ALL
SELECT 'credit ' || outcome || coalesce(' was ' || held_as, ''), count(*) FROM credits GROUP BY 1
UNION ALL
SELECT 'delivery ' || state, count(*) FROM deliveries GROUP BY 1"""


def _result(world: World, conn: psycopg.Connection[Any]) -> Result:
    diary, trace = world.diary, world.diary.trace
    trace.note("world", f"rows {_dump(conn)}")
    return Result(
        seed=world.plan.seed,
        digest=trace.digest,
        lines=trace.lines,
        looks=world.checks.looks,
        payments=len(world.checks.money()),
        sessions=len(world.book.sessions),
        webhooks=world.shops.merchant.received.total,
        met=diary.met | world.town.struck,
        virtual_s=world.loop.time() - START_S,
        real_s=0.0,
        came=dict(conn.execute(_CAME).fetchall()),
        wrong=diary.wrong,
        tail=list(trace.tail)[-SHOWN:],
        plan=world.plan.describe(),
    )


def _dump(conn: psycopg.Connection[Any]) -> str:
    """The digest of every row of every table."""
    digest = hashlib.sha256()
    for (table,) in conn.execute(_TABLES).fetchall():
        rows = conn.execute(_ROWS.format(sql.Identifier(table)))
        for (row,) in rows:
            digest.update(f"{table} {row}\n".encode())
    return digest.hexdigest()[:16]


def _note_loose(diary: Diary, context: dict[str, Any]) -> None:
    """What no task has caught: of a process that was killed it is nothing, else a bug."""
    error = context.get("exception")
    diary.note("loop", f"{context.get('message')}: {error!r}")


@contextmanager
def _logs(diary: Diary) -> Iterator[None]:
    """What the daemons log as a warning or worse is part of the trace."""

    def note(_: Any, method: str, event: MutableMapping[str, Any]) -> str:
        if method not in {"debug", "info"}:
            process = current.get()
            who = process.name if process else "world"
            more = " ".join(f"{k}={v}" for k, v in event.items() if k != "event")
            diary.note(who, f"{method} {event['event']} {more}"[:400])
            if violations := event.get("violations"):
                diary.alarm(f"{who} believes in violations: {violations}")
        raise structlog.DropEvent

    structlog.configure(processors=[note])
    handler = _Handler(diary)
    logging.basicConfig(handlers=[handler], force=True, level=logging.WARNING)
    try:
        yield
    finally:
        structlog.reset_defaults()
        logging.basicConfig(force=True)


class _Handler(logging.Handler):
    """The standard library's logs: aiohttp's server tells of its handlers' errors here."""

    def __init__(self, diary: Diary) -> None:
        super().__init__()
        self._diary = diary

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self._diary.note(record.name, f"{record.getMessage()} {error!r}"[:400])

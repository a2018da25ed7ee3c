"""What the daemon asks of its database again and again, when that has ten million sessions."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, create_engine, text

from bench.benchmark import Benchmark
from bench.filling import OPERATION, SPAN
from bench.full import full_cluster
from bench.machine import describe
from bench.result import Comparison, Contestant, Result, Sense
from bench.rounds import by_turns
from paywatch.service.recover import Timing
from paywatch.store import announcements, audit, gauges, invariants, outbox, recovery
from paywatch.store.engine import sqlalchemy_url
from support import ACCOUNT, NOW
from support.plans import Plan

WINDOW: Final = timedelta(seconds=Timing().window_s)
SINCE: Final = {"since": NOW - WINDOW}
NOW_: Final = {"now": NOW}
CLAIM: Final = {"until": NOW, "token": UUID(int=1), "slots": 200, "per_endpoint": 200, **NOW_}
INVARIANTS: Final = "all invariants"
GOAL_MS: Final = 300_000  # they are checked every five minutes

QUESTIONS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "expiry: overdue": (recovery._OVERDUE.text, {}),
    "recovery: unproven": (recovery._UNPROVEN.text, SINCE),
    "recovery: unmarked": (recovery._UNMARKED.text, SINCE),
    "recovery: untold": (recovery._UNTOLD.text, SINCE),
    "recovery: processing": (announcements._PROCESSING.text, {}),
    "deliveries: claim": (outbox._CLAIM.text, CLAIM),
    "deliveries: release": (outbox._RELEASE.text, NOW_),
    "deliveries: bury": (outbox._BURY.text, NOW_),
    "gauges: outbox": (outbox._DEPTH.text, NOW_),
    "gauges: open sessions": (gauges._OPEN_SESSIONS.text, {}),
}

ABOUT: Final = """\
The database of the year's business above, with ten million sessions that are healthy and over. The
same `--directory` for both brings what the settling above has left there, too: open sessions, and
deliveries that wait, as many as the gauges read. Each statement by which the daemon looks after its
tables is executed as it is, and undone where it changes something. Beside it stand the rows that it
read, by PostgreSQL's own count, and the milliseconds are the server's, too. Recovery and the
invariants look at the last seven days, with all that belongs to them: a fiftieth of the year, and
what the settling above has paid. Everything else reads what is open, due or in flight.
"""


class Care:
    """One database, and what is asked of it."""

    def __init__(self, conn: Connection, sessions: int) -> None:
        self._conn = conn
        page = sessions * OPERATION
        audited = {"account": ACCOUNT, "after": page - 200 * OPERATION, "upto": page}
        operations = list(range(page - 199 * OPERATION, page + 1, 2 * OPERATION))
        self._questions = dict(QUESTIONS) | {
            "audit: a page": (audit._HELD.text, audited | {"operations": operations})
        }
        self.rows_read: dict[str, int] = {}

    def questions(self) -> dict[str, Callable[[], float]]:
        """What each takes: milliseconds."""
        names = [*self._questions, INVARIANTS]
        return {name: lambda name=name: self._ask(name) for name in names}  # type: ignore[misc] # mypy infers no defaults of lambdas

    def _ask(self, name: str) -> float:
        plans = list(self._invariants()) if name == INVARIANTS else [self._plan(name)]
        self.rows_read[name] = sum(plan.rows_read for plan in plans)
        return sum(plan.took_ms for plan in plans)

    def _plan(self, name: str) -> Plan:
        statement, values = self._questions[name]
        return Plan(self._conn, statement, **values)

    def _invariants(self) -> Iterator[Plan]:
        for statement in invariants.INVARIANTS.values():
            values = {**SINCE, "lease_limit": NOW}
            used: dict[str, Any] = {k: v for k, v in values.items() if f":{k}" in statement}
            self._conn.execute(invariants._BY_INDEX)
            yield Plan(self._conn, invariants.first(statement), **used)


def add_arguments(parser: ArgumentParser) -> None:
    """Add how full the tables are, and where they are kept."""
    parser.add_argument("--rows", type=int, default=10_000_000, help="sessions that are over")
    parser.add_argument("--directory", type=Path, help="keep the server there, for another run")


def measure(options: Namespace) -> Result:
    """Fill the tables, and ask."""
    with full_cluster(options.directory, (options.rows,)) as cluster:
        engine = create_engine(sqlalchemy_url(cluster.url(f"sessions_{options.rows}")))
        with engine.connect() as conn:
            conn.execute(text("ANALYZE"))  # what others have settled there since
            conn.commit()
            care = Care(conn, options.rows)
            figures = by_turns(care.questions(), options.rounds)
        engine.dispose()
        machine = describe(cluster.server)
    return Result(
        "care",
        "milliseconds",
        tuple(
            Contestant(name, tuple(took), is_ours=True, about=f"{care.rows_read[name]:,} rows read")
            for name, took in figures.items()
        ),
        (Comparison(INVARIANTS, None, GOAL_MS, Sense.AT_MOST),),
        {"sessions": options.rows, "within days": SPAN.days, "looked back days": WINDOW.days},
        machine,
    )


BENCHMARK: Final = Benchmark(
    "care",
    "Looking after ten million sessions",
    ABOUT,
    measure,
    add_arguments,
    rounds=3,
    is_quick=False,
)

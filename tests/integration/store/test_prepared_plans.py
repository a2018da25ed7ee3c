"""Plans of prepared statements: from the sixth execution on, one may be taken for all values.

What is settled, claimed and recorded must be read by its index then, too. What is asked since a
moment may not have such a plan: it expects a third of all rows, and reads whole tables.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import Connection, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from paywatch.domain.ledger import Memo
from paywatch.store import credits as credit_store
from paywatch.store import cursors, invariants, outbox, recovery, sessions
from paywatch.store.engine import create_engine
from paywatch.store.rows import as_json
from support import ACCOUNT, MERCHANT_ID, NOW, make_credit
from support.plans import DUE, NEW, SINCE, Plan

CREDITS = [make_credit(ledger=0, tx=0, op=n, memo=Memo.of_id(n)) for n in range(1000, 1200)]
NAMES = as_json(name for credit in CREDITS for name in sessions._names(credit))
KEYS = as_json({"operation_id": c.operation_id, "change_index": 0} for c in CREDITS)
CLAIM = {"now": NOW, "until": NOW, "token": MERCHANT_ID, "slots": 50, "per_endpoint": 50}
CURSOR = {"stream": f"live:{ACCOUNT}", "now": NOW}


@pytest.mark.parametrize(
    ("statement", "values", "most"),
    [
        (sessions._LOCK_NAMED, {"rows": NAMES}, 600),
        (credit_store._KNOWN, {"rows": KEYS}, 200),
        (cursors._CLAIM, CURSOR, 1),
        (outbox._CLAIM, CLAIM, 5 * NEW),
        (outbox._RELEASE, {"now": NOW}, 0),
        (outbox._BURY, {"now": NOW}, 2 * NEW),
        (outbox._DEPTH, {"now": NOW}, 2 * NEW),
        (recovery._OVERDUE, {}, 2 * DUE),
    ],
    ids=lambda value: " ".join(value.text.split()[:6]) if isinstance(value, TextClause) else "",
)
def test_a_plan_for_all_values_reads_by_index(
    full: Connection, statement: TextClause, values: dict[str, Any], most: int
) -> None:
    plan = Plan(full, statement, for_all=True, **values)
    assert plan.scanned == set()
    assert plan.rows_read <= most


def test_a_plan_for_any_moment_would_read_whole_tables(full: Connection) -> None:
    """The canary: why those below must not have one."""
    statement = invariants.first(invariants.INVARIANTS["one_paid_event_per_paid_session"])
    assert Plan(full, statement, since=SINCE).rows_read <= 8 * NEW
    assert Plan(full, statement, for_all=True, since=SINCE).rows_read > 100 * NEW


Look = Callable[[AsyncConnection], Awaitable[object]]


looks = pytest.mark.parametrize(
    "look",
    [
        lambda conn: recovery.find_unproven(conn, SINCE),
        lambda conn: recovery.lock_unmarked(conn, SINCE),
        lambda conn: recovery.find_untold(conn, SINCE),
        lambda conn: invariants.find_violations(conn, NOW, SINCE),
    ],
    ids=["unproven", "unmarked", "untold", "violations"],
)


@looks
async def test_lesson_16_what_is_asked_since_a_moment_has_a_plan_for_that_moment_each_time(
    full: Connection, look: Look
) -> None:
    engine = create_engine(full.engine.url.render_as_string(hide_password=False), pool_size=1)
    for _ in range(12):  # it is prepared at the sixth, and may have a plan for all at the eleventh
        async with engine.begin() as conn:
            await look(conn)
    async with engine.begin() as conn:
        [(number, alike)] = await conn.execute(
            text(
                "SELECT count(*), sum(generic_plans) FROM pg_prepared_statements"
                " WHERE parameter_types <> '{}'"
            )
        )
    await engine.dispose()
    assert number > 0
    assert alike == 0


@looks
async def test_a_long_look_back_is_not_cut_off_and_begun_again_for_ever(
    engine: AsyncEngine, look: Look
) -> None:
    """Expiry waits for it, too: cut off after what a settlement may take, nothing would expire."""
    async with engine.begin() as conn:
        await look(conn)
        assert (await conn.execute(text("SHOW statement_timeout"))).scalar_one() == "10min"
    async with engine.begin() as conn:
        assert (await conn.execute(text("SHOW statement_timeout"))).scalar_one() == "30s"

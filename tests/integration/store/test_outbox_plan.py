"""What is read of an outbox with a dead endpoint: rows touched, by the real query plans."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from paywatch.store import outbox

# Rows by the ten thousand, made by SQL: neither sessions nor attempts stand behind them.
pytestmark = pytest.mark.breaks_invariants

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ENDPOINTS = 100
DEAD_DUE = 20_000
DELIVERED = 30_000

_FILL = """
INSERT INTO merchants SELECT gen_random_uuid(), 'm' || n, :now
  FROM generate_series(1, :endpoints) n;
INSERT INTO endpoints (id, merchant_id, url, sealed_secret, created_at)
SELECT gen_random_uuid(), id, 'https://shop.example/', '', :now FROM merchants;
INSERT INTO events
SELECT gen_random_uuid(), (SELECT id FROM merchants LIMIT 1), 'checkout.session.paid',
       gen_random_uuid(), '{}', :now, :now
  FROM generate_series(1, :events);
CREATE TEMP TABLE made ON COMMIT DROP AS
SELECT e.id AS event_id, p.id AS endpoint_id, e.n <= :due AS is_due
  FROM (SELECT id, row_number() OVER () AS n FROM events) e
  JOIN (SELECT id, row_number() OVER (ORDER BY id) - 1 AS n FROM endpoints) p
       ON p.n = CASE WHEN e.n <= :dead_due THEN 0 ELSE e.n % :endpoints END;
INSERT INTO deliveries (event_id, endpoint_id, state, due_at, attempts_made, ended_at)
SELECT event_id, endpoint_id, 'delivered', :now, 0, :now FROM made WHERE NOT is_due;
ANALYZE"""
_FALL_DUE = """
INSERT INTO deliveries (event_id, endpoint_id, state, due_at, attempts_made)
SELECT event_id, endpoint_id, 'pending', :now, 0 FROM made WHERE is_due"""
"""The first endpoint is dead, and thousands are due; all others have one delivery due."""


@pytest.fixture(params=["known", "unknown"])
async def full(engine: AsyncEngine, request: pytest.FixtureRequest) -> AsyncEngine:
    """Full tables; what is due is known to the planner, or came after it had last looked."""
    values = {
        "now": NOW,
        "endpoints": ENDPOINTS,
        "dead_due": DEAD_DUE,
        "due": DEAD_DUE + ENDPOINTS,
        "events": DEAD_DUE + ENDPOINTS + DELIVERED,
    }
    look = ["ANALYZE"] if request.param == "known" else []
    async with engine.begin() as conn:
        for sql in [*_FILL.split(";"), _FALL_DUE, *look]:
            names = text(sql).compile().params
            await conn.execute(text(sql), {name: values[name] for name in names})
    return engine


def scans(plan: dict[str, Any], relation: str) -> Iterator[dict[str, Any]]:
    if plan.get("Relation Name") == relation:
        yield plan
    for part in plan.get("Plans", ()):
        yield from scans(part, relation)


async def explain(conn: AsyncConnection, statement: TextClause, **values: object) -> dict[str, Any]:
    explained = text(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement.text}")
    [[root]] = (await conn.execute(explained, values)).scalars()
    plan: dict[str, Any] = root["Plan"]
    return plan


def rows_read(plan: dict[str, Any]) -> int:
    """Rows of `deliveries` that were touched, kept or not."""
    return sum(
        round((scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0)) * scan["Actual Loops"])
        for scan in scans(plan, "deliveries")
        if scan["Node Type"] != "ModifyTable"
    )


async def test_a_claim_reads_what_it_claims_whatever_lies_in_the_outbox(full: AsyncEngine) -> None:
    values = {"slots": 200, "per_endpoint": 32, "token": UUID(int=1), "now": NOW}
    values["until"] = NOW + timedelta(seconds=60)
    async with full.connect() as conn:
        for _ in range(2):  # the second claim meets the leases of the first
            plan = await explain(conn, outbox._CLAIM, **values)
            shapes = {scan["Node Type"] for scan in scans(plan, "deliveries")}
            assert "Seq Scan" not in shapes, json.dumps(plan)
            # One probe, one row of its share and one to be locked and written for each endpoint.
            assert rows_read(plan) < 1000
        await conn.rollback()


@pytest.mark.parametrize("statement", [outbox._RELEASE, outbox._BURY], ids=["release", "bury"])
async def test_where_nothing_is_to_be_mended_nothing_is_read(
    full: AsyncEngine, statement: TextClause
) -> None:
    async with full.connect() as conn:
        plan = await explain(conn, statement, now=NOW)
        assert rows_read(plan) == 0
        await conn.rollback()

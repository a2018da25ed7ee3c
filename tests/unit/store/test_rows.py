"""Rows as one JSON parameter: what the fast encoder refuses is left to PostgreSQL to refuse."""

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest

from paywatch.domain.checkout import SessionStatus
from paywatch.domain.ledger import Position
from paywatch.store.rows import as_json

ID = UUID(int=7)
AT = datetime(2026, 11, 20, 12, 0, 0, 250, tzinfo=UTC)


def test_ids_times_states_and_positions_are_written_as_postgresql_reads_them() -> None:
    row = {"id": ID, "at": AT, "status": SessionStatus.PAID, "position": Position(2**63 - 1)}
    assert json.loads(as_json([row])) == [
        {
            "id": "00000000-0000-0000-0000-000000000007",
            "at": "2026-11-20T12:00:00.000250+00:00",
            "status": "paid",
            "position": 2**63 - 1,
        }
    ]


@pytest.mark.parametrize("value", [2**64, -(2**70), "half \ud800 a pair"])
def test_what_no_column_holds_reaches_the_database_and_is_not_a_crash_here(value: object) -> None:
    [row] = json.loads(as_json([{"id": ID, "at": AT, "value": value}]))
    assert row["value"] == value
    assert (UUID(row["id"]), datetime.fromisoformat(row["at"])) == (ID, AT)

"""Records that could not be read or written: kept whole, never blocking the cursor."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from paywatch.store.credits import HISTORY_SQL
from paywatch.store.rows import as_json, hexed


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One record, as JSON of what was parsed, and why it could not be settled."""

    operation_id: int
    raw: bytes
    reason: str


# What is a credit of the stream's account already was read whole before: nothing is missing.
_INSERT = text(
    f"""
INSERT INTO quarantine (stream, operation_id, raw, reason, quarantined_at, history)
SELECT CAST(:stream AS text), r.*, CAST(:now AS timestamptz), {HISTORY_SQL}
  FROM json_to_recordset(CAST(:rows AS json)) AS r(operation_id bigint, raw bytea, reason text)
 WHERE NOT EXISTS (
       SELECT FROM credits c
        WHERE c.operation_id = r.operation_id
          AND split_part(:stream, ':', 2) IN (c.account, 'network')
          AND c.history = {HISTORY_SQL})
ON CONFLICT (stream, operation_id, history) DO NOTHING
RETURNING operation_id"""
)


async def insert(
    conn: AsyncConnection, stream: str, records: Iterable[Quarantined], now: datetime
) -> set[int]:
    """Keep records of a stream; one that is there already stays as it was.

    Returns:
        The operations that are in quarantine now and were not before.
    """
    rows = as_json(
        {
            "operation_id": record.operation_id,
            "raw": hexed(record.raw),
            # The reason may quote the record: a NUL would break the text column.
            "reason": record.reason.replace("\0", "\\0")[:1000],
        }
        for record in records
    )
    result = await conn.execute(_INSERT, {"stream": stream, "rows": rows, "now": now})
    return {row.operation_id for row in result}


async def count(conn: AsyncConnection) -> int:
    """Count the operations in quarantine; what two streams met, such as a backfill, is one.

    Of a history that is over, nothing can be read any more, and nobody has to look.
    """
    statement = text(
        f"SELECT count(DISTINCT operation_id) FROM quarantine WHERE history = {HISTORY_SQL}"
    )
    return int((await conn.execute(statement)).scalar_one())

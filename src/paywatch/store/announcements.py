"""What payers announced: written on its session, found again, and ended with its reason."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from paywatch.domain.announcement import Announcement
from paywatch.domain.checkout import Cause, CheckoutSession
from paywatch.store.rows import as_json
from paywatch.store.sessions import SESSION_COLUMNS, session_from

BATCH: Final = 100  # sessions that one run looks after: each costs Horizon two requests or three

_COLUMNS = f"{SESSION_COLUMNS}, s.announced_tx_hash, s.announced_at, s.announced_until"

_LOCK = text(f"SELECT {_COLUMNS} FROM checkout_sessions s WHERE s.id = :id FOR UPDATE")

_WRITE = text(
    """
WITH announced AS (
    UPDATE checkout_sessions
       SET status = 'processing', announced_tx_hash = decode(:tx_hash, 'hex'),
           announced_at = :now, announced_until = :until, updated_at = :now
     WHERE id = :id
)
INSERT INTO session_transitions (session_id, before, after, cause, by, recorded_at)
VALUES (:id, :before, 'processing', :cause, :by, :now)"""
)

# Each account has its turn: many sessions of one that cannot be looked up hold up no other's.
_PROCESSING = text(
    f"""
SELECT {_COLUMNS} FROM checkout_sessions s WHERE s.status = 'processing'
 ORDER BY row_number() OVER (PARTITION BY s.account ORDER BY s.announced_at), s.announced_at, s.id
 LIMIT {BATCH}"""
)

# Guarded by the status and by the announcement: a session that was paid, or for which another
# transaction was announced, since it was read is not touched.
_END = text(
    """
WITH stuck AS (
    SELECT s.id, r.cause
      FROM json_to_recordset(CAST(:rows AS json)) AS r(
           id uuid, tx_hash text, announced_at timestamptz, cause text)
      JOIN checkout_sessions s ON s.id = r.id
     WHERE s.status = 'processing' AND s.announced_tx_hash = decode(r.tx_hash, 'hex')
       AND s.announced_at = r.announced_at
     ORDER BY s.id FOR UPDATE OF s
), ended AS (
    UPDATE checkout_sessions s SET status = 'pending', updated_at = :now
      FROM stuck WHERE s.id = stuck.id RETURNING s.id, stuck.cause
), logged AS (
    INSERT INTO session_transitions (session_id, before, after, cause, by, recorded_at)
    SELECT id, 'processing', 'pending', cause, :by, CAST(:now AS timestamptz) FROM ended
)
SELECT id, cause FROM ended"""
)


async def lock(
    conn: AsyncConnection, session_id: UUID
) -> tuple[CheckoutSession, Announcement | None] | None:
    """Lock a session, and read what was announced for it last, whatever became of that."""
    row = (await conn.execute(_LOCK, {"id": session_id})).one_or_none()
    if row is None:
        return None
    return session_from(row), None if row.announced_tx_hash is None else _announcement(row)


async def write(
    conn: AsyncConnection, session: CheckoutSession, announcement: Announcement, by: str
) -> None:
    """Let a locked session wait for a transaction, and log it."""
    await conn.execute(
        _WRITE,
        {
            "id": session.id,
            "before": session.status,
            "cause": Cause.ANNOUNCED,
            "tx_hash": announcement.tx_hash,
            "until": announcement.until,
            "by": by,
            "now": announcement.announced_at,
        },
    )


async def find_processing(
    conn: AsyncConnection,
) -> list[tuple[CheckoutSession, Announcement]]:
    """Find sessions that wait for a transaction, those first that wait longest."""
    return [(session_from(row), _announcement(row)) for row in await conn.execute(_PROCESSING)]


async def end(
    conn: AsyncConnection,
    endings: Mapping[UUID, tuple[Announcement, Cause]],
    by: str,
    now: datetime,
) -> dict[UUID, Cause]:
    """Let sessions wait for their transactions no more, and log why.

    Returns:
        Those that are `pending` again; the others wait for something else, or for nothing.
    """
    rows = as_json(
        {
            "id": id_,
            "tx_hash": announcement.tx_hash,
            "announced_at": announcement.announced_at,
            "cause": cause,
        }
        for id_, (announcement, cause) in endings.items()
    )
    ended = await conn.execute(_END, {"rows": rows, "by": by, "now": now})
    return {row.id: Cause(row.cause) for row in ended}


def _announcement(row: Row[Any]) -> Announcement:
    return Announcement(row.announced_tx_hash.hex(), row.announced_at, row.announced_until)

"""The outbox's entrance: an event and its deliveries, written with what they tell."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from paywatch.domain.events import Event
from paywatch.store.rows import as_json, hexed

# Deliveries follow only from events that are new: an event told before is not enqueued again.
_ENQUEUE = text(
    """
WITH told AS (
    INSERT INTO events (id, merchant_id, type, subject, payload, occurred_at, recorded_at)
    SELECT r.*, CAST(:now AS timestamptz) FROM json_to_recordset(CAST(:rows AS json)) AS r(
           id uuid, merchant_id uuid, type text, subject uuid, payload bytea,
           occurred_at timestamptz)
    ON CONFLICT (subject, type) DO NOTHING
    RETURNING id, merchant_id
)
INSERT INTO deliveries (event_id, endpoint_id, due_at)
SELECT told.id, endpoints.id, :now FROM told JOIN endpoints USING (merchant_id)
 WHERE endpoints.disabled_at IS NULL"""
)


async def enqueue(conn: AsyncConnection, events: Iterable[Event], now: datetime) -> None:
    """Write events and one delivery, due now, for each endpoint that wants them."""
    rows = as_json(
        {
            "id": str(event.id),
            "merchant_id": str(event.merchant_id),
            "type": event.type,
            "subject": str(event.session_id),
            "payload": hexed(event.payload),
            "occurred_at": event.occurred_at.isoformat(),
        }
        for event in events
    )
    await conn.execute(_ENQUEUE, {"rows": rows, "now": now})

"""The outbox's entrance: an event and its deliveries, written with what they tell."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import text

from paywatch.domain.events import Event
from paywatch.store.rows import as_json, hexed
from paywatch.store.writes import Write

# The merchant is whoever has the account. Deliveries follow only from events that are new: an
# event told before is not enqueued again.
_ENQUEUE = text(
    """
WITH told AS (
    INSERT INTO events (id, type, subject, operation_id, change_index, history, payload,
           occurred_at, merchant_id, recorded_at)
    SELECT r.id, r.type, r.subject, r.operation_id, r.change_index, r.history, r.payload,
           r.occurred_at, (SELECT a.merchant_id FROM accounts a WHERE a.account = r.account),
           CAST(:now AS timestamptz)
      FROM json_to_recordset(CAST(:rows AS json)) AS r(
           id uuid, type text, subject uuid, account text, operation_id bigint,
           change_index smallint, history smallint, payload bytea, occurred_at timestamptz)
    ON CONFLICT (subject, type) DO NOTHING
    RETURNING id, merchant_id
)
INSERT INTO deliveries (event_id, endpoint_id, due_at, state, ended_at, dead_reason)
SELECT told.id, e.id, :now, CASE WHEN e.disabled_at IS NULL THEN 'pending' ELSE 'dead' END,
       CASE WHEN e.disabled_at IS NOT NULL THEN CAST(:now AS timestamptz) END,
       'endpoint disabled: ' || e.disabled_reason
  FROM told JOIN endpoints e USING (merchant_id)"""
)


def enqueue(events: Iterable[Event], now: datetime) -> Write:
    """Write events and one delivery, due now, for each endpoint; dead for one that is disabled."""
    return Write(_ENQUEUE, {"rows": as_json(map(_row, events)), "now": now})


def _row(event: Event) -> dict[str, object]:
    operation_id, change_index, history = event.credit or (None, None, None)
    return {
        "id": event.id,
        "type": event.type,
        "subject": event.subject,
        "account": event.account,
        "operation_id": operation_id,
        "change_index": change_index,
        "history": history,
        "payload": hexed(event.payload),
        "occurred_at": event.occurred_at,
    }

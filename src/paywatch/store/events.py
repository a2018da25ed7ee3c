"""The outbox's entrance: an event and its deliveries, written with what they tell."""

from collections.abc import Iterable
from datetime import datetime
from itertools import accumulate

from sqlalchemy import text

from paywatch.domain.events import Event
from paywatch.store.rows import as_json
from paywatch.store.writes import Write

# Payloads are most of an event, and come as bytes, one behind the other: as text in JSON they would
# be written twice as long, and read twice.
# The merchant is whoever has the account. Deliveries follow only from events that are new: an
# event told before is not enqueued again.
_ENQUEUE = text(
    """
WITH told AS (
    INSERT INTO events (id, type, subject, operation_id, change_index, history, payload,
           occurred_at, merchant_id, recorded_at)
    SELECT r.id, r.type, r.subject, r.operation_id, r.change_index, r.history,
           substring(CAST(:payloads AS bytea) FROM r.starts FOR r.length), r.occurred_at,
           (SELECT a.merchant_id FROM accounts a WHERE a.account = r.account),
           CAST(:now AS timestamptz)
      FROM json_to_recordset(CAST(:rows AS json)) AS r(
           id uuid, type text, subject uuid, account text, operation_id bigint,
           change_index smallint, history smallint, occurred_at timestamptz, starts int, length int)
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
    told = list(events)
    ends = accumulate(len(event.payload) for event in told)
    payloads = b"".join(event.payload for event in told)
    values = {"rows": as_json(map(_row, told, ends)), "payloads": payloads, "now": now}
    return Write(_ENQUEUE, values)


def _row(event: Event, end: int) -> dict[str, object]:
    """The event, whose payload ends at that byte of all payloads."""
    operation_id, change_index, history = event.credit or (None, None, None)
    return {
        "id": event.id,
        "type": event.type,
        "subject": event.subject,
        "account": event.account,
        "operation_id": operation_id,
        "change_index": change_index,
        "history": history,
        "occurred_at": event.occurred_at,
        "starts": end - len(event.payload) + 1,  # SQL counts from 1
        "length": len(event.payload),
    }

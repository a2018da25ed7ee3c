"""Deliveries as an operator sees them: listed, and dead letters sent again."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

_SELECT = """
SELECT d.event_id, v.type, v.merchant_id, d.state, d.attempts_made, d.due_at, d.ended_at,
       d.dead_reason, e.url, e.disabled_reason
  FROM deliveries d
  JOIN events v ON v.id = d.event_id
  JOIN endpoints e ON e.id = d.endpoint_id"""

_LIST = text(
    f"""{_SELECT}
 WHERE d.state = :state ORDER BY d.ended_at DESC, d.due_at DESC, d.event_id LIMIT :limit"""
)

_READ = text(f"{_SELECT} WHERE d.event_id = :event_id")

# The attempts that were made stay, and the next one has the number after them.
_RESEND = text(
    """
UPDATE deliveries d SET state = 'pending', due_at = :now, ended_at = NULL, dead_reason = NULL
  FROM endpoints e
 WHERE d.event_id = :event_id AND d.state = 'dead'
   AND e.id = d.endpoint_id AND e.disabled_at IS NULL"""
)

_ENABLE = text(
    """
UPDATE endpoints e SET disabled_at = NULL, disabled_reason = NULL FROM endpoints before
 WHERE e.merchant_id = :merchant_id AND before.id = e.id
RETURNING e.id, e.url, before.disabled_reason"""
)


async def read_list(conn: AsyncConnection, state: str, limit: int) -> Sequence[Row[Any]]:
    """Read the deliveries of a state, the latest first."""
    return (await conn.execute(_LIST, {"state": state, "limit": limit})).all()


async def read(conn: AsyncConnection, event_id: UUID) -> Row[Any] | None:
    """Read the delivery of an event; None if there is none."""
    return (await conn.execute(_READ, {"event_id": event_id})).one_or_none()


async def resend(conn: AsyncConnection, event_id: UUID, now: datetime) -> bool:
    """Make a dead letter due again; False if it is none, or its endpoint is disabled."""
    result = await conn.execute(_RESEND, {"event_id": event_id, "now": now})
    return result.rowcount == 1


async def enable(conn: AsyncConnection, merchant_id: UUID) -> Row[Any] | None:
    """Enable a merchant's endpoint, and say why it was disabled; None if they have none."""
    return (await conn.execute(_ENABLE, {"merchant_id": merchant_id})).one_or_none()

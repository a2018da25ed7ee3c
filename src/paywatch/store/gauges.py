"""What the gauges show of the database, in two statements that read indexes or small tables."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from paywatch.domain.checkout import SessionStatus

_SESSIONS = text("SELECT status, count(*) AS number FROM checkout_sessions GROUP BY status")


async def sessions_by_status(conn: AsyncConnection) -> dict[SessionStatus, int]:
    """Count the checkout sessions of each status, those without any included."""
    found = {row.status: row.number for row in await conn.execute(_SESSIONS)}
    return {status: found.get(status, 0) for status in SessionStatus}

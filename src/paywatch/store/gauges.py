"""What the gauges show of the database."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from paywatch.domain.checkout import OPEN, SessionStatus
from paywatch.store.tables import OPEN_STATUSES_SQL

_COUNT = "SELECT status, count(*) AS number FROM checkout_sessions"
_ACCOUNTS = text("SELECT followed_by, count(*) AS number FROM accounts GROUP BY followed_by")
_ALL_SESSIONS = text(f"{_COUNT} GROUP BY status")
_OPEN_SESSIONS = text(f"{_COUNT} WHERE status IN ({OPEN_STATUSES_SQL}) GROUP BY status")


async def count_open_sessions(conn: AsyncConnection) -> dict[SessionStatus, int]:
    """Count what still waits for money; reads an index of only these."""
    found = {row.status: row.number for row in await conn.execute(_OPEN_SESSIONS)}
    return {status: found.get(status, 0) for status in SessionStatus if status in OPEN}


async def count_all_sessions(conn: AsyncConnection) -> dict[SessionStatus, int]:
    """Count the checkout sessions of every status; reads the whole table."""
    found = {row.status: row.number for row in await conn.execute(_ALL_SESSIONS)}
    return {status: found.get(status, 0) for status in SessionStatus}


async def count_accounts(conn: AsyncConnection) -> dict[str, int]:
    """Count the watched accounts by whose position counts for them: `account` or `network`."""
    found = {row.followed_by: row.number for row in await conn.execute(_ACCOUNTS)}
    return {by: found.get(by, 0) for by in ("account", "network")}

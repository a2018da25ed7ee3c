"""Gaps: what Horizon keeps no more of a stream, given up by an operator's word."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from paywatch.domain.ledger import Position
from paywatch.store.cursors import Cursor
from paywatch.store.tables import OPEN_STATUSES_SQL

SHOWN: Final = 100  # open sessions that are listed; they are all counted

# `read_through_at` stays: nothing in the gap was read, and nothing may expire as if it had been.
_MOVE = text(
    """
UPDATE cursors SET epoch = epoch + 1, position = :upto, updated_at = :now
 WHERE stream = :stream AND history = :history AND position = :after"""
)

_INSERT = text(
    """
INSERT INTO accepted_gaps (stream, history, after_position, upto_position, accepted_at)
VALUES (:stream, :history, :after, :upto, :now)"""
)

_LIST = text(
    """
SELECT stream, history, after_position, upto_position, accepted_at
  FROM accepted_gaps ORDER BY accepted_at, stream"""
)

# Of the network-wide stream, those of every account that it is read for.
_OPEN_SESSIONS = text(
    f"""
SELECT s.id, s.account, s.reference, s.accept_until, count(*) OVER () AS found
  FROM checkout_sessions s JOIN accounts a USING (account)
 WHERE s.status IN ({OPEN_STATUSES_SQL})
   AND (s.account = CAST(:account AS text)
        OR CAST(:account AS text) IS NULL AND a.followed_by = 'network')
   AND s.accept_until >= coalesce(CAST(:since AS timestamptz), s.accept_until)
   AND s.created_at <= :until
 ORDER BY s.accept_until, s.id LIMIT {SHOWN}"""
)


@dataclass(frozen=True, slots=True)
class Gap:
    """A part of a stream that nobody read, after the one position and up to the other."""

    stream: str
    history: int
    after: Position
    upto: Position
    accepted_at: datetime


async def accept(conn: AsyncConnection, cursor: Cursor, upto: Position, now: datetime) -> bool:
    """Move a cursor over a gap, and note it; False if the cursor is not there any more.

    Whoever leads the stream stands down by the epoch, and begins anew behind the gap.
    """
    parameters = {
        "stream": cursor.stream,
        "history": cursor.history,
        "after": int(cursor.position),
        "upto": int(upto),
        "now": now,
    }
    if (await conn.execute(_MOVE, parameters)).rowcount == 0:
        return False
    await conn.execute(_INSERT, parameters)
    return True


async def read_all(conn: AsyncConnection) -> list[Gap]:
    """Read every gap that was accepted, the oldest word first."""
    return [
        Gap(
            row.stream,
            row.history,
            Position(row.after_position),
            Position(row.upto_position),
            row.accepted_at,
        )
        for row in await conn.execute(_LIST)
    ]


async def open_sessions(
    conn: AsyncConnection, account: str | None, since: datetime | None, until: datetime
) -> Sequence[Row[Any]]:
    """Read the open sessions that could have been paid in a span of time.

    Args:
        conn: a connection.
        account: whose; None for all that the network-wide stream is read for.
        since: the ledger's clock at the span's beginning; None if it is not known.
        until: at its end.
    """
    found = await conn.execute(_OPEN_SESSIONS, {"account": account, "since": since, "until": until})
    return found.all()

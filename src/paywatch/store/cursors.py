"""Where each stream has been read to, and by whom."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from paywatch.domain.ledger import Batch, Position
from paywatch.store import driver
from paywatch.store.credits import HISTORY_SQL


@dataclass(frozen=True, slots=True)
class Cursor:
    """A stream's stored position, exclusive; `epoch` names the instance that may move it."""

    stream: str
    account: str | None  # None: the network-wide stream's
    position: Position
    epoch: int = 0
    end_position: Position | None = None  # of a backfill
    read_through_at: datetime | None = None  # the ledger's clock
    history: int = 0  # that the position is of

    @property
    def label(self) -> str:
        """What the stream is called where the names of streams are few."""
        return self.account or "network"


_COLUMNS = "stream, account, position, epoch, end_position, read_through_at, history"

# A backfill that was killed and is asked for again up to a later end goes on to that end.
_OPEN = text(
    f"""
INSERT INTO cursors AS c (stream, account, position, end_position, updated_at, history)
VALUES (:stream, :account, :position, :end_position, :now, {HISTORY_SQL})
ON CONFLICT (stream) DO UPDATE SET end_position = excluded.end_position
 WHERE c.end_position < excluded.end_position"""
)

_CLAIM = text(
    f"""
UPDATE cursors SET epoch = epoch + 1, updated_at = :now WHERE stream = :stream
RETURNING {_COLUMNS}"""
)

# The compare-and-set that makes two leaders harmless: the slower one changes no row.
_ADVANCE = text(
    """
UPDATE cursors
   SET position = :upto, read_through_at = greatest(read_through_at, :closed_at), updated_at = :now
 WHERE stream = :stream AND epoch = :epoch AND position = :after"""
)

_CLOSE = text(
    """
DELETE FROM cursors WHERE stream = :stream AND epoch = :epoch AND position >= end_position"""
)

_UNFINISHED = text(f"SELECT {_COLUMNS} FROM cursors WHERE end_position IS NOT NULL ORDER BY stream")

_READ = text(f"SELECT {_COLUMNS} FROM cursors WHERE stream = :stream")
_LIST = text(f"SELECT {_COLUMNS} FROM cursors ORDER BY stream")

NETWORK_STREAM: Final = "live:network"

FOLLOWED_SQL: Final = f"""
CASE a.followed_by WHEN 'network' THEN '{NETWORK_STREAM}' ELSE 'live:' || a.account END"""
"""The stream that reads for the account `a`, whose position counts for it."""

_READ_FOLLOWED = text(
    f"SELECT {_COLUMNS} FROM cursors c WHERE c.stream ="
    f" (SELECT {FOLLOWED_SQL} FROM accounts a WHERE a.account = :account)"
)
# While the network is read as a whole, those that have yet to join it are not shown one by one.
_LIST_FOLLOWED = text(
    f"""
SELECT {_COLUMNS} FROM cursors c
 WHERE CASE WHEN EXISTS (SELECT FROM accounts WHERE followed_by = 'network')
       THEN c.stream = '{NETWORK_STREAM}'
       ELSE c.stream IN (SELECT 'live:' || account FROM accounts) END
 ORDER BY stream"""
)


def backfill_stream(account: str, after: Position) -> str:
    """Name the backfill of an account from a position on."""
    return f"backfill:{account}:{after}"


def live_stream(account: str) -> str:
    """Name the live stream of an account."""
    return f"live:{account}"


async def open_stream(conn: AsyncConnection, cursor: Cursor, now: datetime) -> None:
    """Make a cursor unless there is one: its position is never touched, its end only raised."""
    end = cursor.end_position
    await conn.execute(
        _OPEN,
        {
            "stream": cursor.stream,
            "account": cursor.account,
            "position": int(cursor.position),
            "end_position": None if end is None else int(end),
            "now": now,
        },
    )


async def claim(conn: AsyncConnection, stream: str, now: datetime) -> Cursor | None:
    """Take a stream over: raise its epoch, so that whoever led before can move it no more."""
    row = (await conn.execute(_CLAIM, {"stream": stream, "now": now})).one_or_none()
    return None if row is None else _cursor(row)


async def advance(
    conn: AsyncConnection, stream: str, epoch: int, batch: Batch, now: datetime
) -> bool:
    """Move a cursor from the batch's beginning to its end; False if it is not there any more."""
    values = {
        "stream": stream,
        "epoch": epoch,
        "after": int(batch.after),
        "upto": int(batch.upto),
        "closed_at": batch.closed_at,
        "now": now,
    }
    return (await driver.execute(conn, _ADVANCE, values)).rowcount == 1


async def read(conn: AsyncConnection, stream: str) -> Cursor | None:
    """Read one cursor."""
    row = (await conn.execute(_READ, {"stream": stream})).one_or_none()
    return None if row is None else _cursor(row)


async def close_backfill(conn: AsyncConnection, claim: Cursor) -> None:
    """Forget the cursor of a backfill that is ours and at its end."""
    await conn.execute(_CLOSE, {"stream": claim.stream, "epoch": claim.epoch})


async def read_unfinished(conn: AsyncConnection) -> list[Cursor]:
    """Read the cursors of backfills that have not reached their end."""
    return [_cursor(row) for row in await conn.execute(_UNFINISHED)]


async def read_followed(conn: AsyncConnection, account: str) -> Cursor | None:
    """Read the cursor whose position counts for an account."""
    row = (await conn.execute(_READ_FOLLOWED, {"account": account})).one_or_none()
    return None if row is None else _cursor(row)


async def read_all_followed(conn: AsyncConnection) -> list[Cursor]:
    """Read the live cursors that are followed: each account's, or the network-wide one alone."""
    return [_cursor(row) for row in await conn.execute(_LIST_FOLLOWED)]


async def read_all(conn: AsyncConnection) -> list[Cursor]:
    """Read every cursor, by stream."""
    return [_cursor(row) for row in await conn.execute(_LIST)]


def _cursor(row: Row[Any]) -> Cursor:
    return Cursor(
        row.stream,
        row.account,
        Position(row.position),
        row.epoch,
        None if row.end_position is None else Position(row.end_position),
        row.read_through_at,
        row.history,
    )

"""The histories of the network: which one it is, by what it is known, and how another begins."""

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from paywatch.domain.ledger import History, Landmark, Position
from paywatch.store import network
from paywatch.store.credits import HISTORY_SQL

_READ = text(
    f"""
SELECT present.number, l.ledger, l.hash
  FROM (SELECT {HISTORY_SQL} AS number) present
  LEFT JOIN landmarks l ON l.history = present.number"""
)

# A landmark that another process has put there meanwhile stays; so does that of a history which
# is over.
_KEEP_LANDMARK = text(
    f"""
INSERT INTO landmarks AS l (history, ledger, hash, seen_at)
SELECT :history, :ledger, :hash, :now WHERE {HISTORY_SQL} = :history
ON CONFLICT (history) DO UPDATE
   SET ledger = excluded.ledger, hash = excluded.hash, seen_at = excluded.seen_at
 WHERE l.ledger = CAST(:instead_of AS bigint)"""
)

_INSERT = text(
    f"""
INSERT INTO histories (number, start_position, began_at)
SELECT :number, :start_position, :now WHERE {HISTORY_SQL} = :number - 1"""
)

_FORGET_BACKFILLS = text("DELETE FROM cursors WHERE end_position IS NOT NULL RETURNING stream")

# Whoever reads for the old history can move no cursor any more, and loses what goes with it.
_BEGIN_STREAMS = text(
    """
UPDATE cursors
   SET history = :number, epoch = epoch + 1, position = :start_position, updated_at = :now
RETURNING stream"""
)

_BEGIN_ACCOUNTS = text("UPDATE accounts SET start_position = :start_position")


async def read(conn: AsyncConnection) -> History:
    """Read which history it is, and its landmark if one was seen."""
    row = (await conn.execute(_READ)).one()
    return History(row.number, None if row.ledger is None else Landmark(row.ledger, row.hash.hex()))


async def keep_landmark(
    conn: AsyncConnection, history: History, landmark: Landmark, now: datetime
) -> bool:
    """Keep a landmark instead of the one that `history` was read with; False if that changed."""
    instead_of = history.landmark
    result = await conn.execute(
        _KEEP_LANDMARK,
        {
            "history": history.number,
            "ledger": landmark.ledger,
            "hash": bytes.fromhex(landmark.hash),
            "instead_of": None if instead_of is None else instead_of.ledger,
            "now": now,
        },
    )
    return result.rowcount == 1


async def begin(
    conn: AsyncConnection, history: History, start: Position, now: datetime
) -> tuple[list[str], list[str]] | None:
    """Begin another history: every stream reads from its start; unfinished backfills are forgotten.

    Nothing of the old history is touched. What settles at the same moment loses, by the epoch.

    Args:
        conn: in a SERIALIZABLE transaction.
        history: the new one.
        start: before everything in it that can be read.
        now: the wall clock.

    Returns:
        The streams that begin, and those that are forgotten; None if another process was faster.
    """
    parameters = {"number": history.number, "start_position": int(start), "now": now}
    if (await conn.execute(_INSERT, parameters)).rowcount == 0:
        return None
    await network.lock(conn)
    forgotten = [row.stream for row in await conn.execute(_FORGET_BACKFILLS)]
    begun = [row.stream for row in await conn.execute(_BEGIN_STREAMS, parameters)]
    await conn.execute(_BEGIN_ACCOUNTS, {"start_position": int(start)})
    if history.landmark is not None:
        await keep_landmark(conn, History(history.number), history.landmark, now)
    return sorted(begun), sorted(forgotten)

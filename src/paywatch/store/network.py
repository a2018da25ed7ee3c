"""Which accounts the network-wide stream reads for, and how they come to it and go from it.

Every account has a cursor of its own, and a flag that says whose position counts for it: its own
cursor's, or the network-wide one's. Each change of the flag is one statement, and none of them
makes the position that counts claim what has not been read.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from paywatch.domain.ledger import Position
from paywatch.store.cursors import NETWORK_STREAM

# The stream begins where the furthest account is; whoever is there joins at once, and whoever is
# behind when it has caught up. While nobody is read for by it, its position may be raised: nobody's
# depends on it; and its epoch with it, so that a leader that knows of no jump can neither move it
# nor let anybody join.
_OPEN: Final = text(
    f"""
WITH opened AS (
    INSERT INTO cursors AS c (stream, position, history, updated_at)
    SELECT '{NETWORK_STREAM}', max(own.position), max(own.history), CAST(:now AS timestamptz)
      FROM accounts a JOIN cursors own ON own.stream = 'live:' || a.account
    HAVING count(*) > 0
    ON CONFLICT (stream) DO UPDATE
       SET position = excluded.position, epoch = c.epoch + 1, updated_at = excluded.updated_at
     WHERE NOT EXISTS (SELECT FROM accounts WHERE followed_by = 'network')
       AND c.position <= excluded.position
    RETURNING position
)
UPDATE accounts a SET followed_by = 'network'
  FROM opened JOIN cursors own USING (position) WHERE own.stream = 'live:' || a.account"""
)

_LOCK: Final = text(f"SELECT FROM cursors WHERE stream = '{NETWORK_STREAM}' FOR UPDATE")

# Not before the stream has passed the account's own cursor: its position never goes down.
_JOIN: Final = text(
    f"""
UPDATE accounts a SET followed_by = 'network'
  FROM cursors own, cursors network
 WHERE a.account = ANY(:accounts) AND a.followed_by = 'account'
   AND own.stream = 'live:' || a.account AND network.stream = '{NETWORK_STREAM}'
   AND network.epoch = :epoch AND network.position >= own.position
RETURNING a.account"""
)

_WAITING: Final = text(
    """
SELECT a.account, own.position FROM accounts a JOIN cursors own ON own.stream = 'live:' || a.account
 WHERE a.followed_by = 'account'"""
)

_LEAVE: Final = text(
    f"""
WITH gone AS (
    UPDATE accounts SET followed_by = 'account' WHERE followed_by = 'network' RETURNING account
), network AS (
    UPDATE cursors SET epoch = epoch + 1, updated_at = :now
     WHERE stream = '{NETWORK_STREAM}' AND EXISTS (SELECT FROM gone)
    RETURNING position, read_through_at
)
UPDATE cursors own
   SET position = greatest(own.position, network.position), epoch = own.epoch + 1,
       read_through_at = greatest(own.read_through_at, network.read_through_at), updated_at = :now
  FROM gone, network WHERE own.stream = 'live:' || gone.account"""
)


async def lock(conn: AsyncConnection) -> None:
    """Lock the stream's cursor, if there is one, before any account, as opening the stream does."""
    await conn.execute(_LOCK)


async def open_network(conn: AsyncConnection, now: datetime) -> None:
    """Make the network-wide stream's cursor, or bring it to where the accounts are."""
    await conn.execute(_OPEN, {"now": now})


async def read_waiting(conn: AsyncConnection) -> dict[str, Position]:
    """Read which accounts have not joined, and how far each was read by itself."""
    return {row.account: Position(row.position) for row in await conn.execute(_WAITING)}


async def join(conn: AsyncConnection, accounts: Collection[str], epoch: int) -> set[str]:
    """Let the network-wide stream's position count for accounts from now on.

    Args:
        conn: its transaction must be SERIALIZABLE.
        accounts: each read up to a position from which on the leader of `epoch` has looked for it.
        epoch: if another leads meanwhile, nobody joins.

    Returns:
        Who joined; the stream has not passed the others' own cursors yet.
    """
    rows = await conn.execute(_JOIN, {"accounts": sorted(accounts), "epoch": epoch})
    return {row.account for row in rows}


async def leave(conn: AsyncConnection, now: datetime) -> int:
    """Give every account its own cursor back, where the network-wide stream has read to.

    Returns:
        How many there were.
    """
    await lock(conn)
    return (await conn.execute(_LEAVE, {"now": now})).rowcount

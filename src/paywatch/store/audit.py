"""What an audit asks the database: how far each account was read, and what we hold of a span."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from paywatch.domain.ledger import Credit, Position
from paywatch.store.credits import HISTORY_SQL, credit_from
from paywatch.store.cursors import FOLLOWED_SQL

MOST_EXTRA = 100  # credits of one page that the ledger does not show; one is enough to alarm


@dataclass(frozen=True, slots=True)
class Watch:
    """A watched account: where its watching began, how far it was read, and by which stream."""

    account: str
    start_position: Position
    read_upto: Position
    by_network: bool


# An account without a cursor has not been read at all.
_WATCHES = text(
    f"""
SELECT a.account, a.start_position, coalesce(c.position, 0) AS read_upto,
       a.followed_by = 'network' AS by_network
  FROM accounts a LEFT JOIN cursors c ON c.stream = {FOLLOWED_SQL}
 ORDER BY a.account"""
)

# The credits of the operations on a page, whomever they credit, and those that the page lacks: of
# its account, or of all that the network-wide stream reads for.
_HELD = text(
    f"""
SELECT c.* FROM credits c
 WHERE c.operation_id = ANY(:operations) AND c.history = {HISTORY_SQL}
 UNION ALL
(SELECT c.* FROM credits c JOIN accounts a USING (account)
  WHERE c.operation_id > :after AND c.operation_id <= :upto AND c.history = {HISTORY_SQL}
    AND c.operation_id <> ALL(:operations) AND c.operation_id > a.start_position
    AND CASE WHEN CAST(:account AS text) IS NULL THEN a.followed_by = 'network'
             ELSE a.account = :account END
  ORDER BY c.operation_id, c.change_index LIMIT {MOST_EXTRA})"""
)

_QUARANTINED = text(
    f"""
SELECT q.operation_id FROM quarantine q
 WHERE q.operation_id = ANY(:operations) AND q.history = {HISTORY_SQL}
   AND (CAST(:account AS text) IS NULL OR split_part(q.stream, ':', 2) IN (:account, 'network'))"""
)


async def read_watches(conn: AsyncConnection) -> list[Watch]:
    """Read all watched accounts, in order."""
    return [
        Watch(row.account, Position(row.start_position), Position(row.read_upto), row.by_network)
        for row in await conn.execute(_WATCHES)
    ]


async def read_held(
    conn: AsyncConnection,
    account: str | None,
    span: tuple[Position, Position],
    operations: Collection[int],
) -> list[Credit]:
    """Read our credits of these operations, and at most MOST_EXTRA others of a span.

    Args:
        conn: the connection.
        account: whose others; None for those of all accounts that the network's stream reads for.
        span: after its first position, and up to its second.
        operations: those that the ledger shows in it.
    """
    after, upto = span
    parameters = {"after": int(after), "upto": int(upto), "account": account}
    rows = await conn.execute(_HELD, parameters | {"operations": [int(op) for op in operations]})
    return [credit_from(row) for row in rows]


async def read_quarantined(
    conn: AsyncConnection, account: str | None, operations: Collection[int]
) -> set[int]:
    """Say which of these operations are in quarantine, for this account or for any."""
    parameters = {"account": account, "operations": [int(op) for op in operations]}
    return {row.operation_id for row in await conn.execute(_QUARANTINED, parameters)}

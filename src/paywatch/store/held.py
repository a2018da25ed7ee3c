"""Held credits, and what the merchant's word made of them; of the current history alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from paywatch.domain.checkout import CheckoutSession
from paywatch.domain.ledger import Credit
from paywatch.domain.settlement import Outcome
from paywatch.store.credits import HISTORY_SQL, credit_from
from paywatch.store.sessions import SESSION_COLUMNS, session_from

Key = tuple[int, int]
"""Operation and change."""

# With the predicates of the partial indexes, word for word.
_WAITING: Final = "c.outcome NOT IN ('applied', 'returned')"
_RESOLVED: Final = "c.held_as IS NOT NULL"


@dataclass(frozen=True, slots=True)
class CreditState:
    """A credit as it stands.

    Attributes:
        held_as: what it was held as, if a word has resolved it.
        returned_by_tx: the hash of the refund, in hex.
    """

    credit: Credit
    outcome: Outcome
    session_id: UUID | None
    held_as: Outcome | None
    resolved_at: datetime | None
    returned_by_tx: str | None

    @property
    def is_held(self) -> bool:
        """Whether it waits for a word."""
        return self.outcome not in {Outcome.APPLIED, Outcome.RETURNED}


@dataclass(frozen=True, slots=True)
class CreditView:
    """A credit, its session, and its event with the state of its delivery."""

    state: CreditState
    session: CheckoutSession | None
    event: Row[Any] | None


_READ: Final = f"""
SELECT c.* FROM credits c
 WHERE c.operation_id = :operation_id AND c.change_index = :change_index
   AND c.history = {HISTORY_SQL}"""

_FIND = text(_READ)
_LOCK = text(f"{_READ} FOR UPDATE OF c")

_SESSION = text(f"SELECT {SESSION_COLUMNS} FROM checkout_sessions s WHERE s.id = :id")

_EVENT = text(
    f"""
SELECT e.id, d.state, d.attempts_made FROM events e LEFT JOIN deliveries d ON d.event_id = e.id
 WHERE e.operation_id = :operation_id AND e.change_index = :change_index
   AND e.history = {HISTORY_SQL} AND e.type = 'payment.unapplied'"""
)


def _list(condition: str) -> str:
    """The newest of each account by its index, then of all: what lies deeper is not read."""
    return f"""
SELECT c.* FROM accounts a CROSS JOIN LATERAL (
       SELECT c.* FROM credits c
        WHERE c.account = a.account AND {condition} AND c.history = {HISTORY_SQL}
          AND (CAST(:outcome AS text) IS NULL OR :outcome IN (c.outcome, c.held_as))
        ORDER BY c.operation_id DESC LIMIT :limit) c
 WHERE CAST(:account AS text) IS NULL OR a.account = :account"""


_ORDER: Final = "ORDER BY operation_id DESC, change_index DESC LIMIT :limit"
_LIST_WAITING = text(f"{_list(_WAITING)} {_ORDER}")
_LIST_ALL = text(f"({_list(_WAITING)}) UNION ALL ({_list(_RESOLVED)}) {_ORDER}")

_RESOLVE = text(
    f"""
UPDATE credits c
   SET held_as = c.outcome, outcome = :outcome, session_id = coalesce(:session_id, c.session_id),
       returned_by_tx = CAST(:returned_by_tx AS bytea), resolved_at = :now
 WHERE c.operation_id = :operation_id AND c.change_index = :change_index
   AND c.history = {HISTORY_SQL} AND {_WAITING}"""
)

# Of two that read this at once and then write, SERIALIZABLE lets one commit.
_RETURNED_BY = text(
    f"""
SELECT coalesce(sum(c.amount), 0)::bigint AS amount FROM credits c
 WHERE c.returned_by_tx = :tx_hash AND c.history = {HISTORY_SQL}
   AND c.account = :account AND c.payer = :payer AND c.asset = :asset"""
)


async def find(conn: AsyncConnection, key: Key) -> CreditState | None:
    """Read one credit, held or not."""
    return await _one(conn, _FIND, key)


async def lock(conn: AsyncConnection, key: Key) -> CreditState | None:
    """Lock one credit; the session that it shall pay is locked before."""
    return await _one(conn, _LOCK, key)


async def _one(conn: AsyncConnection, statement: Any, key: Key) -> CreditState | None:
    row = (await conn.execute(statement, _parameters(key))).one_or_none()
    return None if row is None else _state(row)


async def read(conn: AsyncConnection, key: Key) -> CreditView | None:
    """Read one credit with its session and its event."""
    state = await find(conn, key)
    if state is None:
        return None
    session = (await conn.execute(_SESSION, {"id": state.session_id})).one_or_none()
    event = (await conn.execute(_EVENT, _parameters(key))).one_or_none()
    return CreditView(state, None if session is None else session_from(session), event)


async def read_list(
    conn: AsyncConnection,
    *,
    account: str | None,
    outcome: Outcome | None,
    resolved: bool,
    limit: int,
) -> Sequence[CreditState]:
    """Read the newest held credits, and those that a word has resolved if wanted.

    `outcome` is what they are, or what they were held as; any if it is None.
    """
    statement = _LIST_ALL if resolved else _LIST_WAITING
    parameters = {"account": account, "outcome": outcome, "limit": limit}
    return [_state(row) for row in await conn.execute(statement, parameters)]


async def mark_applied(conn: AsyncConnection, key: Key, session_id: UUID, now: datetime) -> None:
    """Write of a locked, held credit that it pays a session; its payment is there."""
    await _resolve(conn, key, now, outcome=Outcome.APPLIED, session_id=session_id)


async def mark_returned(conn: AsyncConnection, key: Key, tx_hash: str, now: datetime) -> None:
    """Write of a locked, held credit that a transaction has paid it back."""
    refund = bytes.fromhex(tx_hash)
    await _resolve(conn, key, now, outcome=Outcome.RETURNED, returned_by_tx=refund)


async def _resolve(conn: AsyncConnection, key: Key, now: datetime, **word: object) -> None:
    parameters = {"session_id": None, "returned_by_tx": None} | word
    await conn.execute(_RESOLVE, parameters | _parameters(key) | {"now": now})


async def returned_by(conn: AsyncConnection, tx_hash: str, like: Credit) -> int:
    """Add up, in stroops, what a refund has returned of the same account, payer and asset."""
    row = await conn.execute(
        _RETURNED_BY,
        {
            "tx_hash": bytes.fromhex(tx_hash),
            "account": like.account,
            "payer": like.payer,
            "asset": str(like.asset),
        },
    )
    return int(row.scalar_one())


def _parameters(key: Key) -> dict[str, object]:
    return {"operation_id": key[0], "change_index": key[1]}


def _state(row: Row[Any]) -> CreditState:
    return CreditState(
        credit=credit_from(row),
        outcome=Outcome(row.outcome),
        session_id=row.session_id,
        held_as=None if row.held_as is None else Outcome(row.held_as),
        resolved_at=row.resolved_at,
        returned_by_tx=row.returned_by_tx and row.returned_by_tx.hex(),
    )

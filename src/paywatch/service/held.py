"""Held: what a merchant says of held credits, and what becomes of them by it.

Like settling, each word is one SERIALIZABLE transaction, and locks the session before the credit.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Final, Protocol, TypeVar
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from paywatch.domain.announcement import Trace
from paywatch.domain.refund import Refund
from paywatch.domain.settlement import Outcome, apply_by_word, in_ledger_order
from paywatch.errors import InvalidInput, NotFound
from paywatch.service.settle import paid_events
from paywatch.store import credits as credit_store
from paywatch.store import events, held, sessions
from paywatch.store.held import CreditState, CreditView, Key
from paywatch.store.retry import in_transaction
from paywatch.store.writes import send

log = structlog.stdlib.get_logger(__name__)
T = TypeVar("T")

BY: Final = "merchant"


class TxSource(Protocol):
    """Looks transactions up."""

    async def trace(self, tx_hash: str, watched: Container[str]) -> Trace:
        """Say how a transaction ended, and what it credits to these accounts."""
        ...


@dataclass(frozen=True)
class HeldCredits:
    """The held credits of one database.

    Attributes:
        engine: whose transactions are SERIALIZABLE.
        source: where a refund is looked up.
        clock: the wall clock; it dates rows and judges nothing.
    """

    engine: AsyncEngine
    source: TxSource
    clock: Callable[[], datetime]
    rng: Random

    async def read(self, key: Key) -> CreditView:
        """Read a credit, held or not, with its session and its event.

        Raises:
            NotFound: no such credit.
        """
        async with self._snapshot.begin() as conn:
            return _found(await held.read(conn, key), key)

    async def read_held(self, key: Key) -> CreditState:
        """Read a credit that is held.

        Raises:
            NotFound: no such credit.
            InvalidInput: it is not held any more, or never was.
        """
        state = (await self.read(key)).state
        _require_held(state)
        return state

    async def read_list(
        self, account: str | None, outcome: Outcome | None, *, resolved: bool, limit: int
    ) -> Sequence[CreditState]:
        """Read the newest held credits, and those that a word has resolved if wanted."""
        async with self._snapshot.begin() as conn:
            return await held.read_list(
                conn, account=account, outcome=outcome, resolved=resolved, limit=limit
            )

    async def apply(self, key: Key, session_id: UUID) -> CreditView:
        """Apply a held credit to a session, which it may complete; again, it changes nothing.

        Raises:
            NotFound: no such credit or session.
            InvalidInput: the credit is not held any more, or the session cannot take it.
        """
        now = self.clock()

        async def apply(conn: AsyncConnection) -> CreditView:
            session = await sessions.lock(conn, session_id)
            if session is None:
                raise NotFound(f"there is no session {session_id}")
            state = _found(await held.lock(conn, key), key)
            if (state.outcome, state.session_id) != (Outcome.APPLIED, session_id):
                _require_held(state)
                settlement = apply_by_word(session, state.credit)
                if settlement.completed_by is not None:
                    completed = {session_id: settlement.completed_by}
                    later = await credit_store.applied_behind(conn, completed)
                    settlement = in_ledger_order(settlement, later.get(session_id, ()))
                await send(conn, credit_store.insert_payment(*key, now))
                await held.mark_applied(conn, key, session_id, now)
                await send(conn, sessions.write_settled([settlement], BY, now))
                await send(conn, events.enqueue(paid_events([settlement]), now))
            return _found(await held.read(conn, key), key)

        view = await in_transaction(self.engine, apply, rng=self.rng)
        log.info("credit_applied", credit=view.state.credit.name, session_id=str(session_id))
        return view

    async def mark_returned(self, key: Key, tx_hash: str) -> CreditView:
        """Mark a held credit as returned by a transaction that is on the ledger.

        Again, by the same transaction, it changes nothing. One refund may return several credits,
        as far as its amount goes.

        Args:
            key: the credit.
            tx_hash: the refund's outer or inner hash, in hex.

        Raises:
            NotFound: no such credit.
            InvalidInput: the credit is not held any more, or the transaction does not return it.
            HorizonError: the ledger cannot be read.
        """
        credit = (await self.read(key)).state.credit
        refund = Refund.of(credit, await self.source.trace(tx_hash, {credit.payer}))
        now = self.clock()

        async def mark(conn: AsyncConnection) -> CreditView:
            state = _found(await held.lock(conn, key), key)
            if state.credit != credit:
                raise NotFound(f"{credit.name} is of a history that is over")
            if state.returned_by_tx != refund.tx_hash:
                _require_held(state)
                refund.require_cover(credit, await held.returned_by(conn, refund.tx_hash, credit))
                await held.mark_returned(conn, key, refund.tx_hash, now)
            return _found(await held.read(conn, key), key)

        view = await in_transaction(self.engine, mark, rng=self.rng)
        log.info("credit_returned", credit=credit.name, tx_hash=refund.tx_hash)
        return view

    @property
    def _snapshot(self) -> AsyncEngine:
        return self.engine.execution_options(isolation_level="REPEATABLE READ")


def _found(found: T | None, key: Key) -> T:
    if found is None:
        raise NotFound(f"there is no credit {key[0]}:{key[1]}")
    return found


def _require_held(state: CreditState) -> None:
    """Refuse what is not held any more, or never was, and say what became of it."""
    if state.is_held:
        return
    became = (
        f"was returned by {state.returned_by_tx}"
        if state.outcome is Outcome.RETURNED
        else f"is applied to session {state.session_id}"
    )
    raise InvalidInput("credit", f"{state.credit.name} {became}: it is not held")

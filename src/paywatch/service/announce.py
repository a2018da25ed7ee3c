"""Announce: a payer or a wallet says which transaction pays a session."""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from paywatch.domain.announcement import Announcement, Reception, TxState, conclude, receive
from paywatch.domain.checkout import Cause, CheckoutSession, SessionStatus
from paywatch.errors import HorizonError, NotFound
from paywatch.service.trace import Tracer
from paywatch.store import announcements, checkout

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Announced:
    """What came of an announcement.

    Attributes:
        status: the session's, after the look-up.
        state: of the transaction; None if Horizon could not be asked, and `problem` says why.
        settled: credits that were not known before, for whichever sessions.
        ended: why the session does not wait for it any more, if it is `pending` again.
    """

    session_id: UUID
    tx_hash: str
    reception: Reception
    status: SessionStatus
    state: TxState | None = None
    ledger: int | None = None
    closed_at: datetime | None = None
    settled: int = 0
    ended: Cause | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class _Received:
    """An announcement as it was taken; one that was repeated is the first one still."""

    reception: Reception
    session: CheckoutSession
    announcement: Announcement
    instead_of: str | None  # the hash that was waited for before


@dataclass(frozen=True)
class Announcements:
    """Takes announcements, and looks each up at once."""

    tracer: Tracer

    async def announce(
        self, session_id: UUID, tx_hash: str, until: datetime | None = None
    ) -> Announced:
        """Let a session wait for a transaction, and look it up.

        Killed between the two, recovery does the second.

        Args:
            session_id: which session it pays.
            tx_hash: hex, in lower case; a fee bump's outer hash or the inner one.
            until: the transaction's own time bound, if it is known.

        Raises:
            NotFound: no such session.
        """
        received = await self.tracer.with_conn(
            lambda conn: self._receive(conn, session_id, tx_hash, until)
        )
        log.info(
            "announced",
            session_id=str(session_id),
            tx_hash=tx_hash,
            reception=received.reception,
            instead_of=received.instead_of,
        )
        announced = Announced(session_id, tx_hash, received.reception, received.session.status)
        try:
            announced = await self._look_up(announced, received)
        except HorizonError as error:
            log.warning("announced_not_looked_up", session_id=str(session_id), error=str(error))
            announced = replace(announced, problem=str(error))
        view = await self.tracer.with_conn(
            lambda conn: checkout.read(conn, session_id), "REPEATABLE READ"
        )
        return announced if view is None else replace(announced, status=view.session.status)

    async def _receive(
        self, conn: AsyncConnection, session_id: UUID, tx_hash: str, until: datetime | None
    ) -> _Received:
        locked = await announcements.lock(conn, session_id)
        if locked is None:
            raise NotFound(f"there is no session {session_id}")
        session, current = locked
        reception = receive(session.status, current, tx_hash)
        if reception is Reception.REPEATED and current is not None:
            return _Received(reception, session, current, None)
        announcement = Announcement(tx_hash, self.tracer.clock(), until)
        if reception is not Reception.LOOKED_UP:
            await announcements.write(conn, session, announcement, self.tracer.by)
        replaced = current.tx_hash if current and reception is Reception.REPLACED else None
        return _Received(reception, session, announcement, replaced)

    async def _look_up(self, announced: Announced, received: _Received) -> Announced:
        watched, session = await self.tracer.watched(), received.session
        trace, settled = await self.tracer.look_up(announced.tx_hash, watched, session.account)
        cause = conclude(received.announcement, trace)
        endings = {} if cause is None else {session.id: (received.announcement, cause)}
        ended = await self.tracer.end(endings)  # of a session that still waits for it
        return replace(
            announced,
            state=trace.state,
            ledger=trace.ledger,
            closed_at=trace.closed_at,
            settled=len(settled.outcomes),
            ended=ended.get(session.id),
        )

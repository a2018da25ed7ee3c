"""Gaps: ledgers that a stream has not read and no Horizon keeps, given up by an operator's word."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Final, Protocol
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from paywatch.domain.events import iso
from paywatch.domain.ledger import Position
from paywatch.errors import CursorMoved, HistoryGap, InvalidInput, NotFound
from paywatch.service.standing import HistorySource
from paywatch.store import cursors, gaps
from paywatch.store.cursors import Cursor
from paywatch.store.retry import in_transaction

LEDGER: Final = timedelta(seconds=5)  # about; where the clock at a gap's beginning is not known

log = structlog.stdlib.get_logger(__name__)


class LedgerSource(HistorySource, Protocol):
    """Knows what Horizon keeps, and when its ledgers closed."""

    async def closed_at(self, ledger: int) -> datetime:
        """Tell when a ledger closed; raises HorizonUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class MissingRange:
    """What would be lost of a stream.

    Attributes:
        cursor: where the stream stands.
        upto: the last position that is missing.
        since: the ledger's clock at its beginning; None if it is not known.
        until: at its end.
        sessions: open ones that may have been paid in it, the first of `session_count`.
    """

    cursor: Cursor
    upto: Position
    since: datetime | None
    until: datetime
    sessions: tuple[tuple[UUID, str | None], ...]
    session_count: int

    @property
    def ledgers(self) -> int:
        """How many are missing, the one that was read in part with them."""
        return self.upto.ledger - self.cursor.position.ledger

    @property
    def about(self) -> timedelta:
        """How long a time is missing."""
        span = self.until - self.since if self.since else self.ledgers * LEDGER
        return max(timedelta(0), span)

    def document(self) -> dict[str, object]:
        """Describe it as a JSON document."""
        return {
            "stream": self.cursor.stream,
            "after_ledger": self.cursor.position.ledger,
            "to_ledger": self.upto.ledger,
            "ledgers": self.ledgers,
            "from": self.since and iso(self.since),
            "to": iso(self.until),
            "about_s": round(self.about.total_seconds()),
            "open_sessions": self.session_count,
            "sessions": [
                {"id": str(id_), "reference": reference} for id_, reference in self.sessions
            ],
        }


@dataclass(frozen=True)
class Gaps:
    """Finds and accepts gaps."""

    engine: AsyncEngine
    source: LedgerSource
    clock: Callable[[], datetime]
    rng: Random

    async def find(self, stream: str) -> MissingRange:
        """See what is missing of a stream, by Horizon itself; changes nothing.

        Raises:
            NotFound: there is no such stream.
            InvalidInput: nothing is missing.
            NetworkReset, WrongNetwork: this is no gap, and may not be taken for one.
            HorizonUnavailable: Horizon cannot be asked.
        """
        async with self.engine.connect() as conn:
            cursor = await cursors.read(conn, stream)
        if cursor is None:
            raise NotFound("there is no such stream: `paywatch stream list` names them all")
        elder = await self._elder(cursor)
        upto = Position.after_ledger(elder - 1)
        if cursor.end_position is not None:  # of a backfill: there it has ended
            upto = min(upto, cursor.end_position)
        until = await self.source.closed_at(elder)
        async with self.engine.connect() as conn:
            found = await gaps.open_sessions(conn, cursor.account, cursor.read_through_at, until)
        return MissingRange(
            cursor,
            upto,
            cursor.read_through_at,
            until,
            tuple((row.id, row.reference) for row in found),
            found[0].found if found else 0,
        )

    async def _elder(self, cursor: Cursor) -> int:
        try:
            await self.source.require_history(cursor.position)
        except HistoryGap as gap:
            if gap.elder is None:
                raise
            return gap.elder
        raise InvalidInput(
            "stream",
            f"{cursor.stream} has no gap: Horizon goes on from ledger {cursor.position.ledger}",
        )

    async def accept(self, missing: MissingRange) -> None:
        """Move the stream behind the gap; whoever leads it begins anew there.

        Raises:
            CursorMoved: the stream is not where it was when it was looked at.
        """
        accepted = await in_transaction(
            self.engine,
            lambda conn: gaps.accept(conn, missing.cursor, missing.upto, self.clock()),
            rng=self.rng,
        )
        if not accepted:
            raise CursorMoved(f"{missing.cursor.stream} has moved meanwhile: look again")
        log.warning("gap_accepted", **missing.document())

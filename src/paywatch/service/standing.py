"""Standing: whether each stream can go on at Horizon from where it was read to, and what to do."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncEngine

from paywatch.domain.events import iso
from paywatch.domain.ledger import Position
from paywatch.errors import HistoryGap, HorizonError, HorizonUnavailable, NetworkReset
from paywatch.store import cursors, gaps, histories
from paywatch.store.cursors import Cursor
from paywatch.store.gaps import Gap


class HistorySource(Protocol):
    """Knows what Horizon keeps."""

    async def require_history(self, after: Position) -> None:
        """Raise HistoryGap, NetworkReset or WrongNetwork if a cursor cannot go on there."""
        ...


class CanGoOn(StrEnum):
    """Whether a stream can be read on from its cursor."""

    YES = "ok"
    GAP = "gap"  # Horizon keeps no more what comes next
    RESET = "reset"  # Horizon serves another history
    NO = "refused"  # another network
    UNKNOWN = "unknown"  # Horizon does not answer


@dataclass(frozen=True, slots=True)
class Standing:
    """One stream; `why` and `remedy` are empty where it can go on."""

    cursor: Cursor
    can_go_on: CanGoOn
    why: str = ""
    remedy: str = ""

    def document(self) -> dict[str, object]:
        """Describe it as a JSON document."""
        cursor = self.cursor
        return {
            "stream": cursor.stream,
            "account": cursor.account,
            "history": cursor.history,
            "ledger": cursor.position.ledger,
            "end_ledger": cursor.end_position and cursor.end_position.ledger,
            "read_through_at": _moment(cursor.read_through_at),
            "epoch": cursor.epoch,
            "can_go_on": self.can_go_on,
            "why": self.why or None,
            "remedy": self.remedy or None,
        }


@dataclass(frozen=True, slots=True)
class Standings:
    """All streams of a database, and the gaps that were accepted in them."""

    history: int
    streams: tuple[Standing, ...]
    gaps: tuple[Gap, ...]

    def document(self) -> dict[str, object]:
        """Describe them as a JSON document."""
        return {
            "history": self.history,
            "streams": [standing.document() for standing in self.streams],
            "accepted_gaps": [
                {
                    "stream": gap.stream,
                    "history": gap.history,
                    "after_ledger": gap.after.ledger,
                    "to_ledger": gap.upto.ledger,
                    "accepted_at": iso(gap.accepted_at),
                }
                for gap in self.gaps
            ],
        }


def remedy(error: HorizonError, stream: str) -> str:
    """Say which command is the operator's word where a stream may not go on by itself."""
    match error:
        case HistoryGap():
            return f"`paywatch stream accept-gap {stream}` accepts it"
        case NetworkReset():
            return "if the test network was reset, `paywatch stream reset` goes on with the new one"
    return ""


async def read_standings(engine: AsyncEngine, source: HistorySource) -> Standings:
    """Compare every cursor with Horizon; the root document is read once for all."""
    async with engine.connect() as conn:
        history = await histories.read(conn)
        streams = await cursors.read_all(conn)
        accepted = await gaps.read_all(conn)
    standings = tuple([await _stand(source, cursor) for cursor in streams])
    return Standings(history.number, standings, tuple(accepted))


async def _stand(source: HistorySource, cursor: Cursor) -> Standing:
    try:
        await source.require_history(cursor.position)
    except HorizonError as error:
        return Standing(cursor, _kind(error), str(error), remedy(error, cursor.stream))
    return Standing(cursor, CanGoOn.YES)


def _kind(error: HorizonError) -> CanGoOn:
    match error:
        case HorizonUnavailable():
            return CanGoOn.UNKNOWN
        case HistoryGap():
            return CanGoOn.GAP
        case NetworkReset():
            return CanGoOn.RESET
    return CanGoOn.NO


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else iso(moment)

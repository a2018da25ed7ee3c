"""Histories: how it is known which one Horizon serves, and how another one is begun."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Final, Protocol, TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from paywatch.domain.ledger import History, Landmark, Position
from paywatch.errors import (
    CursorMoved,
    HistoryGap,
    HorizonError,
    HorizonUnavailable,
    InvalidInput,
    NetworkReset,
)
from paywatch.service.standing import HistorySource
from paywatch.service.waiting import unless, wait_for
from paywatch.store import cursors, histories
from paywatch.store.cursors import Cursor
from paywatch.store.retry import DATABASE_ERRORS, in_transaction

# The first follows from the network's name, and is the same in every history.
FIRST_LANDMARK: Final = 2
LOOK_S: Final = 3600.0
LOOK_AGAIN_S: Final = 60.0  # where there was nothing to see

log = structlog.stdlib.get_logger(__name__)
T = TypeVar("T")


class Root(Protocol):
    """What a Horizon has."""

    @property
    def latest(self) -> int:
        """Its latest ledger."""
        ...

    @property
    def elder(self) -> int:
        """Its oldest ledger."""
        ...


class LandmarkSource(HistorySource, Protocol):
    """Knows what Horizon keeps, and by what its history is known."""

    async def check_network(self) -> None:
        """Raise WrongNetwork unless it is the one of the settings."""
        ...

    async def root(self) -> Root:
        """Read the root document, whatever history it is of; raises HorizonError."""
        ...

    async def ledger_hash(self, ledger: int) -> str | None:
        """Tell a ledger's hash in hex; None if it is not there."""
        ...


async def present_history(engine: AsyncEngine) -> History:
    """Read which history it is, for who is about to read from Horizon.

    Raises:
        HorizonUnavailable: that is not known while the database is away, so nothing may be read.
    """
    try:
        async with engine.connect() as conn:
            return await histories.read(conn)
    except DATABASE_ERRORS as error:
        problem = f"the database does not say which history it is ({type(error).__name__})"
        raise HorizonUnavailable("database", problem) from error


def choose_landmark(history: History, root: Root) -> int | None:
    """Say which ledger is to be the landmark, or that the present one will do.

    One as old as possible shows another history soonest: the new one has to have as many ledgers.
    Where Horizon forgets, it is replaced before it is forgotten.
    """
    old = history.landmark
    keeps_all = root.elder <= FIRST_LANDMARK
    if old is not None and (keeps_all or old.ledger > (root.elder + root.latest) // 2):
        return None
    wanted = FIRST_LANDMARK if keeps_all else root.latest
    return wanted if wanted <= root.latest else None


@dataclass(frozen=True, slots=True)
class Reset:
    """Another history, and where each stream would begin in it.

    Attributes:
        history: the new one.
        start: before all that Horizon keeps of it.
        why: what shows that it is another one.
    """

    history: History
    start: Position
    why: str


@dataclass(frozen=True, slots=True)
class Begun:
    """The streams that read the new history now, and the old one's backfills, forgotten."""

    streams: tuple[str, ...]
    forgotten: tuple[str, ...]


@dataclass(frozen=True)
class Histories:
    """Keeps the landmark of the present history, and begins another by an operator's word."""

    engine: AsyncEngine
    source: LandmarkSource
    clock: Callable[[], datetime]
    rng: Random

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the landmark until `stop` is set."""
        while not stop.is_set():
            try:
                seen = await unless(stop, self.keep_landmark())
            except HorizonError as error:
                log.warning("landmark_not_seen", error=str(error))
                seen = False
            await wait_for(stop, LOOK_S if seen else LOOK_AGAIN_S)

    async def keep_landmark(self) -> bool:
        """See that the present history has a landmark that Horizon keeps; False if it has none.

        The source itself compares it, before it reads anything.

        Raises:
            HorizonError: Horizon cannot be read, or serves another history.
        """
        await self._require_same_history()
        root, history = await self.source.root(), await self._present()
        ledger = choose_landmark(history, root)
        if ledger is None:
            return history.landmark is not None
        if not await self._still_holds(history.landmark, root):
            return False
        found = await self.source.ledger_hash(ledger)
        if found is None:
            return False
        await self._keep(history, Landmark(ledger, found))
        return True

    async def _still_holds(self, old: Landmark | None, root: Root) -> bool:
        """Whether nothing speaks against what is about to replace a landmark."""
        if old is None or old.ledger < root.elder:
            return True
        return await self.source.ledger_hash(old.ledger) == old.hash

    async def _require_same_history(self) -> None:
        """Refuse what is below the furthest cursor, too: it is no landmark of what was read."""
        positions = [cursor.position for cursor in await self._cursors()]
        try:
            await self.source.require_history(max(positions, default=Position(0)))
        except HistoryGap:
            return  # the same history, only shorter

    async def _keep(self, history: History, landmark: Landmark) -> None:
        kept = await self._in_transaction(
            lambda conn: histories.keep_landmark(conn, history, landmark, self.clock())
        )
        if kept:
            log.info("landmark", history=history.number, ledger=landmark.ledger, hash=landmark.hash)

    async def find_reset(self) -> Reset:
        """See that Horizon serves another history, and where it begins; changes nothing.

        Raises:
            InvalidInput: it serves the same.
            WrongNetwork: it is another network, and no other history of this one.
            HorizonUnavailable: Horizon cannot be asked.
        """
        await self.source.check_network()
        why = await self._what_shows_a_reset()
        root, present = await self.source.root(), await self._present()
        ledger = max(FIRST_LANDMARK, root.elder)
        found = await self.source.ledger_hash(ledger)
        landmark = None if found is None else Landmark(ledger, found)
        # From its beginning, not from its tip: payments have been made since.
        start = Position.after_ledger(root.elder - 1)
        return Reset(History(present.number + 1, landmark), start, why)

    async def _what_shows_a_reset(self) -> str:
        streams = await self._cursors()
        for cursor in streams:
            try:
                await self.source.require_history(cursor.position)
            except NetworkReset as error:
                return str(error)
            except HistoryGap:
                continue
        raise InvalidInput(
            "reset",
            f"the network has not begun again: what Horizon serves is the history of which"
            f" {len(streams)} streams were read; `paywatch stream list` says where they stand",
        )

    async def begin(self, reset: Reset) -> Begun:
        """Begin another history: nothing of the old one is lost, and every stream begins anew.

        Raises:
            CursorMoved: it has been begun already.
        """
        begun = await self._in_transaction(
            lambda conn: histories.begin(conn, reset.history, reset.start, self.clock())
        )
        if begun is None:
            raise CursorMoved(
                f"history {reset.history.number} has begun already: see `paywatch stream list`"
            )
        streams, forgotten = begun
        log.warning(
            "history_begun",
            history=reset.history.number,
            start_ledger=reset.start.ledger + 1,
            streams=streams,
            forgotten=forgotten,
            why=reset.why,
        )
        return Begun(tuple(streams), tuple(forgotten))

    async def _present(self) -> History:
        return await self._in_transaction(histories.read)

    async def _cursors(self) -> list[Cursor]:
        """Read the cursors that have no end."""
        found = await self._in_transaction(cursors.read_all)
        return [cursor for cursor in found if cursor.end_position is None]

    async def _in_transaction(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        return await in_transaction(self.engine, work, rng=self.rng)

"""A page of an account's payments, checked: what it holds and how far it proves to have read."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from paywatch.domain.ledger import Batch, LedgerRecord, Position
from paywatch.errors import HorizonUnavailable, RecordError
from paywatch.horizon.documents import PAGE_LIMIT, Root
from paywatch.horizon.fields import read_position, read_time
from paywatch.horizon.records import parse_record

Raw = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """Everything in (`after`, `upto`]; `closed_at` and `unfunded` as in `Batch`."""

    records: tuple[tuple[Position, Raw], ...]
    after: Position
    upto: Position
    closed_at: datetime | None
    is_full: bool  # there may be more at once
    unfunded: bool = False

    @property
    def may_skip(self) -> bool:
        """Whether it shows nothing of the ledger that `after` lies in, or ends."""
        return not self.records or self.records[0][0].ledger > Position(self.after + 1).ledger

    @classmethod
    def of(
        cls, records: Sequence[Raw], after: Position, root: Root, limit: int = PAGE_LIMIT
    ) -> Self:
        """Check a page of `limit` that was read after `root` was, from the same instance.

        Only an empty page moves past the last record, to the end of the root's latest ledger. A
        short page would prove as much of a single instance; but behind a load balancer the root's
        instance may be ahead of the page's, and a page with records is followed by another anyway.

        Raises:
            HorizonUnavailable: `order`, if the positions are not strictly increasing from `after`;
                `malformed`, if a record has none.
        """
        if not records:
            knows_more = root.latest >= after.ledger
            closed_at = root.closed_at if knows_more else None
            return cls((), after, max(after, root.tip), closed_at, is_full=False)
        placed = tuple((place(raw), raw) for raw in records)
        last = after
        for position, _ in placed:
            if position <= last:
                raise HorizonUnavailable("order", f"position {position} after {last} in a page")
            last = position
        closed_at = _closed_at(placed[-1][1])
        return cls(placed, after, last, closed_at, is_full=len(placed) >= limit)

    def batch(self, watched: Container[str], known: Container[Position] = ()) -> Batch:
        """Read the records that are not known yet."""
        new = [(position, raw) for position, raw in self.records if position not in known]
        parsed = (parse_record(raw, watched) for _, raw in new)
        records = tuple(record for record in parsed if record is not None)
        return Batch(records, self.after, self.upto, self.closed_at, len(new), self.unfunded)


def place(raw: Raw) -> Position:
    """Read a record's position.

    Raises:
        HorizonUnavailable: `malformed`: it has none, so nothing after it may be read either.
    """
    try:
        return read_position(raw)
    except RecordError as error:
        raise HorizonUnavailable("malformed", f"record: {error}") from error


def read_placed(records: Sequence[Raw], watched: Container[str]) -> tuple[LedgerRecord, ...]:
    """Read the records of one transaction, in its order."""
    placed = sorted(((place(raw), raw) for raw in records), key=lambda pair: pair[0])
    parsed = (parse_record(raw, watched) for _, raw in placed)
    return tuple(record for record in parsed if record is not None)


def _closed_at(raw: Raw) -> datetime | None:
    try:
        return read_time(raw, "created_at")
    except RecordError:
        return None

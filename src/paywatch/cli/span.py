"""A span of the past as the options `--from` and `--to` name it."""

from dataclasses import dataclass
from typing import Self

from paywatch.cli.arguments import LedgerOrTime, parse_ledger_or_time
from paywatch.domain.ledger import Position
from paywatch.errors import InvalidInput
from paywatch.wiring import House


@dataclass(frozen=True, slots=True)
class Span:
    """What was asked for, resolved against a Horizon only when needed."""

    begin: LedgerOrTime | None
    end: LedgerOrTime | None

    @classmethod
    def parse(cls, begin: str | None, end: str | None) -> Self:
        """Read both options.

        Raises:
            InvalidInput: one is neither a ledger nor a time.
        """
        return cls(
            parse_ledger_or_time(begin, "from") if begin else None,
            parse_ledger_or_time(end, "to") if end else None,
        )

    async def after(self, house: House) -> Position | None:
        """Give the position before the first operation; None if nothing was asked for."""
        if self.begin is None:
            return None
        if self.begin.at is not None:
            return await house.polite.position_at(self.begin.at)
        return Position.after_ledger((self.begin.ledger or 1) - 1)

    async def upto(self, house: House) -> Position:
        """Give the position of the last operation: at most the tip."""
        tip = await house.source.tip()
        if self.end is None:
            return tip
        if self.end.at is not None:
            return min(tip, await house.polite.position_at(self.end.at))
        return min(tip, Position.after_ledger(self.end.ledger or 1))


def too_late(upto: Position) -> InvalidInput:
    """The beginning lies behind the end."""
    return InvalidInput("from", f"is after the last ledger to read, {upto.ledger}")

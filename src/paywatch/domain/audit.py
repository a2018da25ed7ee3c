"""The comparison of an audit: what the ledger shows against the credits that we hold."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Final

from paywatch.domain.ledger import Credit, LedgerRecord, Position, format_stroops

_NAMES: Final = tuple(field.name for field in fields(Credit))


class Kind(StrEnum):
    """How the ledger and our credits disagree."""

    MISSING = "missing"  # the ledger shows it, and we do not hold it: settled
    EXTRA = "extra"  # we hold it, and the ledger does not show it: never repaired
    DIFFERENT = "different"  # both have it, but not the same: never repaired


@dataclass(frozen=True, slots=True)
class Finding:
    """One place where they disagree."""

    kind: Kind
    account: str | None  # none: a record among everybody's that cannot be read
    operation_id: Position
    change_index: int | None  # none: a record that cannot be read
    problem: str

    @property
    def place(self) -> tuple[Kind, Position, int | None]:
        """What it is about, however it is worded."""
        return (self.kind, self.operation_id, self.change_index)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What comparing one page came to.

    Attributes:
        missing: the records to settle, with those of their credits that we do not hold.
        mismatches: what is extra or different.
    """

    missing: tuple[LedgerRecord, ...]
    mismatches: tuple[Finding, ...]

    def without(self, quarantined: Collection[int]) -> "Comparison":
        """Leave out the operations that are kept in quarantine: they are not missing."""
        missing = tuple(r for r in self.missing if r.operation_id not in quarantined)
        return replace(self, missing=missing)

    @property
    def findings(self) -> list[Finding]:
        """All of it, credit by credit."""
        return [found for record in self.missing for found in _lacks(record)] + [*self.mismatches]


def compare(
    shown: Sequence[LedgerRecord], held: Collection[Credit], since: Mapping[str, Position]
) -> Comparison:
    """Compare what a page shows with what we hold of the same span.

    Args:
        shown: the records of the page.
        held: our credits in the span, and those of the operations shown.
        since: the accounts that are compared, and where the watching of each began. What lies
            before need not be there, and may, by a backfill.
    """
    ours = {credit.key: credit for credit in held}
    theirs = {c.key: c for record in shown for c in record.credits if _concerns(since, c)}
    unreadable = {record.operation_id for record in shown if record.problem is not None}
    known = {credit.operation_id for credit in held if credit.account in since}
    extra = [
        _extra(credit)
        for key, credit in sorted(ours.items())
        if _concerns(since, credit) and key not in theirs and credit.operation_id not in unreadable
    ]
    different = [
        _different(credit, ours[key])
        for key, credit in sorted(theirs.items())
        if ours.get(key, credit) != credit
    ]
    missing = []
    for record in shown:
        lacking = tuple(c for c in record.credits if c.key in theirs and c.key not in ours)
        if lacking or (record.problem is not None and record.operation_id not in known):
            missing.append(replace(record, credits=lacking))
    return Comparison(tuple(missing), (*extra, *different))


def _concerns(since: Mapping[str, Position], credit: Credit) -> bool:
    return credit.account in since and credit.operation_id > since[credit.account]


def _lacks(record: LedgerRecord) -> Iterator[Finding]:
    if record.problem is not None:
        problem = f"cannot be read, and is not in quarantine: {record.problem}"
        yield Finding(Kind.MISSING, None, record.operation_id, None, problem)
    for credit in record.credits:
        yield _finding(Kind.MISSING, credit, f"{_money(credit)} that we did not know of")


def _extra(credit: Credit) -> Finding:
    return _finding(Kind.EXTRA, credit, f"{_money(credit)} that the ledger does not show")


def _different(theirs: Credit, ours: Credit) -> Finding:
    names = [name for name in _NAMES if getattr(theirs, name) != getattr(ours, name)]
    problem = "; ".join(
        f"{name}: the ledger has {getattr(theirs, name)}, we hold {getattr(ours, name)}"
        for name in names
    )
    return _finding(Kind.DIFFERENT, theirs, problem)


def _finding(kind: Kind, credit: Credit, problem: str) -> Finding:
    return Finding(kind, credit.account, credit.operation_id, credit.change_index, problem)


def _money(credit: Credit) -> str:
    return f"{format_stroops(credit.amount)} {credit.asset} by {credit.tx_hash}"

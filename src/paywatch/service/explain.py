"""Explain: what captured records hold, and what would be done with each. Writes nothing.

The same parsing and the same decision as in settling; only the locks and the writes are missing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncEngine

from paywatch.domain.checkout import SessionStatus
from paywatch.domain.events import iso
from paywatch.domain.ledger import MAX_STROOPS, Credit, LedgerRecord, format_stroops
from paywatch.domain.settlement import BatchSettlement, Outcome, Settlement, decide_batch
from paywatch.errors import RecordError
from paywatch.service.held_documents import HELD_BECAUSE
from paywatch.store import credits as credit_store
from paywatch.store import merchants, sessions

Raw = Mapping[str, Any]
Key = tuple[int, int]


class RecordReader(Protocol):
    """Reads records as the live stream does."""

    def parse(self, raw: Raw) -> LedgerRecord | None:
        """Read a record's credits; None if it holds none. Raises RecordError."""
        ...

    def why_no_credit(self, raw: Raw) -> str:
        """Say why it holds none."""
        ...


class Does(StrEnum):
    """What would be done with a credit."""

    APPLY = "applied"
    HOLD = "held"
    KNOWN = "known"  # it was settled before
    IGNORE = "ignored"  # nobody watches the account
    UNDECIDED = "undecided"  # without a database nobody knows the sessions


@dataclass(frozen=True, slots=True)
class Verdict:
    """What would be done with one credit, why, and to which session."""

    does: Does
    reason: str
    session_id: str | None = None
    session_status: SessionStatus | None = None  # afterwards


@dataclass(frozen=True, slots=True)
class Explained:
    """One record; `nothing` or `quarantined` says why it has no credits."""

    raw: Raw
    credits: tuple[tuple[Credit, Verdict], ...] = ()
    nothing: str | None = None
    quarantined: str | None = None

    def document(self) -> dict[str, Any]:
        """Describe it as a JSON document."""
        return {
            "operation_id": self.raw.get("paging_token"),
            "type": self.raw.get("type"),
            "tx_hash": self.raw.get("transaction_hash"),
            "credits": [_credit_document(*pair) for pair in self.credits],
            "nothing": self.nothing,
            "quarantined": self.quarantined,
        }


async def explain(
    raws: Iterable[Raw], reader: RecordReader, engine: AsyncEngine | None
) -> list[Explained]:
    """Explain records in their order.

    Args:
        raws: as captured.
        reader: knows the form of the records and which accounts are asked for.
        engine: the database whose sessions are looked at, in a read-only transaction; or none.
    """
    read = [_read(raw, reader) for raw in raws]
    found = [credit for one in read if not isinstance(one, Explained) for credit in one.credits]
    verdict = _undecided if engine is None else await _judge(engine, found)
    return [
        one
        if isinstance(one, Explained)
        else Explained(one.source, tuple((credit, verdict(credit)) for credit in one.credits))
        for one in read
    ]


def _read(raw: Raw, reader: RecordReader) -> Explained | LedgerRecord:
    try:
        record = reader.parse(raw)
    except RecordError as error:
        return Explained(raw, quarantined=str(error))
    if record is None:
        return Explained(raw, nothing=reader.why_no_credit(raw))
    if record.problem is not None:
        return Explained(raw, quarantined=record.problem)
    if any(credit.amount > MAX_STROOPS for credit in record.credits):
        return Explained(raw, quarantined="amount: more than 64 bits of stroops")
    return record


def _undecided(_: Credit) -> Verdict:
    return Verdict(Does.UNDECIDED, "the sessions were not looked up")


async def _judge(engine: AsyncEngine, found: Sequence[Credit]) -> Callable[[Credit], Verdict]:
    """Decide as settling would, if these credits came now and in one batch."""
    unique = {credit.key: credit for credit in found}
    async with engine.connect() as plain:
        conn = await plain.execution_options(postgresql_readonly=True)
        watched = {row.account for row in await merchants.read_accounts(conn)}
        _, known = await credit_store.known(conn, unique.values())
        fresh = [c for key, c in unique.items() if key not in known and c.account in watched]
        named = await sessions.find_named(conn, fresh)
        unproven = await sessions.unproven(conn, named)
    verdicts = _verdicts(decide_batch(named, fresh, unproven))

    def verdict(credit: Credit) -> Verdict:
        if credit.account not in watched:
            return Verdict(Does.IGNORE, "no merchant has this account")
        if credit.key in known:
            return Verdict(Does.KNOWN, "settled before: nothing changes")
        return verdicts[credit.key]

    return verdict


def _verdicts(decided: BatchSettlement) -> dict[Key, Verdict]:
    unmatched = Verdict(Does.HOLD, _held_because(Outcome.UNMATCHED))
    verdicts = dict.fromkeys((credit.key for credit in decided.unmatched), unmatched)
    for settlement in decided.settlements:
        verdicts |= _verdicts_of(settlement)
    return verdicts


def _verdicts_of(settlement: Settlement) -> dict[Key, Verdict]:
    """Follow the session's status from credit to credit."""
    changes = {t.credit.key: t.after for t in settlement.transitions if t.credit is not None}
    first = settlement.transitions[0].before if settlement.transitions else None
    status = first or settlement.session.status
    verdicts = {}
    for credit, outcome in settlement.outcomes:
        status = changes.get(credit.key, status)
        session = str(settlement.session.id), status
        if outcome is Outcome.APPLIED:
            verdicts[credit.key] = Verdict(Does.APPLY, f"the session is {status} then", *session)
        else:
            verdicts[credit.key] = Verdict(Does.HOLD, _held_because(outcome), *session)
    return verdicts


def _held_because(outcome: Outcome) -> str:
    return f"{outcome}: {HELD_BECAUSE[outcome]}"


def _credit_document(credit: Credit, verdict: Verdict) -> dict[str, Any]:
    return {
        "change_index": credit.change_index,
        "account": credit.account,
        "muxed_id": None if credit.muxed_id is None else str(credit.muxed_id),
        "amount": format_stroops(credit.amount),
        "asset": str(credit.asset),
        "payer": credit.payer,
        "memo_type": credit.memo.type,
        "memo": str(credit.memo),
        "closed_at": iso(credit.closed_at),
        "does": verdict.does,
        "reason": verdict.reason,
        "session_id": verdict.session_id,
        "session_status": verdict.session_status,
    }

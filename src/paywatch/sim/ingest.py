"""From a transaction that was applied to the rows that Horizon keeps of it."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from stellar_sdk import (
    DecoratedSignature,
    HashMemo,
    IdMemo,
    Memo,
    MuxedAccount,
    Operation,
    Preconditions,
    ReturnHashMemo,
    TextMemo,
    xdr,
)

from paywatch.sim import entries
from paywatch.sim.details import is_payment, kind_name, operation_details, participants
from paywatch.sim.effects import EFFECT_TYPES, operation_effects
from paywatch.sim.envelopes import SignedTx
from paywatch.sim.history import AppliedOperation, AppliedTx, Effect, toid
from paywatch.sim.operations import Outcome
from paywatch.sim.state import Change


@dataclass(frozen=True, slots=True)
class AppliedStep:
    """One operation that was tried: its source, its outcome and the entries that it changed."""

    operation: Operation
    source: MuxedAccount
    outcome: Outcome
    changes: Sequence[Change]


@dataclass(frozen=True, slots=True)
class Application:
    """All that is known of one transaction once its ledger has closed."""

    signed: SignedTx
    ledger: int
    order: int
    closed_at: datetime
    result: xdr.TransactionResult
    successful: bool
    fee_changes: Sequence[Change]
    sequence_changes: Sequence[Change]
    steps: Sequence[AppliedStep]


def ingest_tx(done: Application) -> AppliedTx:
    """The transaction's row."""
    signed, tx = done.signed, done.signed.tx
    kept = done.steps if done.successful else ()
    metas = [entries.operation_meta(s.changes, s.outcome.transfer, done.ledger) for s in kept]
    bumped = signed.inner_hash is not None
    return AppliedTx(
        id=toid(done.ledger, done.order),
        hash=signed.hash.hex(),
        inner_hash=signed.inner_hash.hex() if signed.inner_hash else None,
        ledger=done.ledger,
        closed_at=done.closed_at,
        successful=done.successful,
        source=tx.source,
        sequence=tx.sequence,
        fee_source=signed.fee_source,
        fee_charged=done.result.fee_charged.int64,
        max_fee=signed.fee,
        inner_max_fee=tx.fee,
        operation_count=len(tx.operations),
        envelope_xdr=signed.envelope_xdr,
        result_xdr=done.result.to_xdr(),
        meta_xdr=entries.tx_meta(
            done.sequence_changes, metas, done.ledger, soroban=tx.soroban_data is not None
        ),
        fee_meta_xdr=entries.changes_xdr(done.fee_changes, done.ledger).to_xdr(),
        memo=memo_fields(tx.memo),
        preconditions=_preconditions(tx.preconditions),
        signatures=_signatures(signed.signatures),
        inner_signatures=_signatures(signed.inner_signatures) if bumped else (),
    )


def ingest_operations(done: Application, tx: AppliedTx) -> list[AppliedOperation]:
    """The rows of its operations, with their effects."""
    return [_operation(done, tx, index, step) for index, step in enumerate(done.steps, start=1)]


def memo_fields(memo: Memo) -> dict[str, str]:
    """`memo_type`, and `memo` and `memo_bytes` where Horizon has them.

    A text memo may hold any bytes: `memo` shows each bad one as U+FFFD and leaves out NULs
    (`transaction_batch_insert_builder.go`), only `memo_bytes` is exact.
    """
    if isinstance(memo, TextMemo):
        exact = base64.b64encode(memo.memo_text).decode()
        return {"memo": scrub(memo.memo_text), "memo_bytes": exact, "memo_type": "text"}
    if isinstance(memo, IdMemo):
        return {"memo": str(memo.memo_id), "memo_type": "id"}
    if isinstance(memo, HashMemo):
        return {"memo": base64.b64encode(memo.memo_hash).decode(), "memo_type": "hash"}
    if isinstance(memo, ReturnHashMemo):
        return {"memo": base64.b64encode(memo.memo_return).decode(), "memo_type": "return"}
    return {"memo_type": "none"}


def scrub(raw: bytes) -> str:
    """Bytes as text in Go's manner: every byte that cannot be decoded becomes one U+FFFD.

    Python would write one mark for a whole truncated sequence.
    """
    shown, rest = "", raw
    while rest:
        try:
            return (shown + rest.decode()).replace("\0", "")
        except UnicodeDecodeError as error:
            shown += rest[: error.start].decode() + "\ufffd"
            rest = rest[error.start + 1 :]
    return shown.replace("\0", "")


def _operation(done: Application, tx: AppliedTx, index: int, step: AppliedStep) -> AppliedOperation:
    op_id, ok = tx.id + index, done.successful
    name, number = kind_name(step.operation)
    rows = operation_effects(step.operation, step.source, step.outcome, step.changes) if ok else []
    return AppliedOperation(
        id=op_id,
        tx=tx,
        type=name,
        type_i=number,
        source=step.source,
        details=operation_details(step.operation, step.source, step.outcome, successful=ok),
        participants=participants(step.operation, step.source, step.outcome, successful=ok),
        is_payment=is_payment(step.operation, step.outcome, successful=ok),
        effects=tuple(
            Effect(op_id, order, kind, EFFECT_TYPES[kind], account, details, done.closed_at)
            for order, (kind, account, details) in enumerate(rows, start=1)
        ),
    )


def _signatures(signatures: Sequence[DecoratedSignature]) -> tuple[str, ...]:
    return tuple(base64.b64encode(s.signature).decode() for s in signatures)


def _preconditions(preconditions: Preconditions | None) -> dict[str, Any]:
    if preconditions is None:
        return {}
    fields: dict[str, Any] = {}
    times, ledgers = preconditions.time_bounds, preconditions.ledger_bounds
    if times is not None:
        upper = {"max_time": str(times.max_time)} if times.max_time else {}
        fields["timebounds"] = {"min_time": str(times.min_time), **upper}
    if ledgers is not None:
        upper_ledger = {"max_ledger": ledgers.max_ledger} if ledgers.max_ledger else {}
        fields["ledgerbounds"] = {"min_ledger": ledgers.min_ledger, **upper_ledger}
    return fields

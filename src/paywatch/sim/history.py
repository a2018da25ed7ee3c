"""What Horizon ingests and serves: ledgers, transactions, operations and effects, in order.

The fields of an operation or effect that depend on its type are kept as Horizon keeps them, as a
JSON object (`details`), so that serving is only adding links.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any, Final

from stellar_sdk import MuxedAccount

_BY_ID: Final = attrgetter("id")


def toid(ledger: int, tx_order: int = 0, operation: int = 0) -> int:
    """A position in the ledger order (SEP-35); transactions and operations count from 1."""
    return ledger << 32 | tx_order << 12 | operation


def after_ledger(ledger: int) -> int:
    """The position behind everything in a ledger."""
    return toid(ledger, 0xFFFFF, 0xFFF)


@dataclass(frozen=True, slots=True)
class ClosedLedger:
    """A ledger's header and counts; `refused` are those submitted that did not get in, by hash."""

    sequence: int
    closed_at: datetime
    hash: str
    previous_hash: str
    header_xdr: str
    successful: int
    failed: int
    operations: int
    tx_set_operations: int
    total_coins: int
    fee_pool: int
    refused: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> int:
        """Its position: before everything in it."""
        return toid(self.sequence)


@dataclass(frozen=True, slots=True)
class Effect:
    """One effect of an operation; `order` counts from 1."""

    operation_id: int
    order: int
    type: str
    type_i: int
    account: MuxedAccount
    details: Mapping[str, Any]
    closed_at: datetime

    @property
    def id(self) -> tuple[int, int]:
        """Its place: by operation, then by order."""
        return (self.operation_id, self.order)


@dataclass(frozen=True, slots=True)
class AppliedTx:
    """A transaction in a ledger. Fees in stroops; `details` holds memo and preconditions."""

    id: int
    hash: str
    inner_hash: str | None
    ledger: int
    closed_at: datetime
    successful: bool
    source: MuxedAccount
    sequence: int
    fee_source: MuxedAccount
    fee_charged: int
    max_fee: int
    inner_max_fee: int
    operation_count: int
    envelope_xdr: str
    result_xdr: str
    meta_xdr: str
    fee_meta_xdr: str
    memo: Mapping[str, str]
    preconditions: Mapping[str, Any]
    signatures: Sequence[str]
    inner_signatures: Sequence[str]


@dataclass(frozen=True, slots=True)
class AppliedOperation:
    """An operation in a ledger, with what Horizon calls its details, and its participants."""

    id: int
    tx: AppliedTx
    type: str
    type_i: int
    source: MuxedAccount
    details: Mapping[str, Any]
    participants: frozenset[str]
    is_payment: bool
    effects: Sequence[Effect]


class History:
    """Everything since the first ledger, with the indexes that the lists need."""

    def __init__(self) -> None:
        self.ledgers: list[ClosedLedger] = []
        self.transactions: list[AppliedTx] = []
        self.operations: list[AppliedOperation] = []
        self.payments: list[AppliedOperation] = []
        self.effects: list[Effect] = []
        self._tx_by_hash: dict[str, AppliedTx] = {}
        self._operations_of: dict[str, list[AppliedOperation]] = {}
        self._payments_of: dict[str, list[AppliedOperation]] = {}
        self._transactions_of: dict[str, list[AppliedTx]] = {}
        self._effects_of: dict[str, list[Effect]] = {}

    def append(self, tx: AppliedTx, operations: Sequence[AppliedOperation]) -> None:
        """Add a transaction and its operations; positions only grow."""
        self.transactions.append(tx)
        self._tx_by_hash[tx.hash] = tx
        if tx.inner_hash is not None:
            self._tx_by_hash[tx.inner_hash] = tx
        participants = {tx.source.account_id: None, tx.fee_source.account_id: None}
        for operation in operations:
            self._append_operation(operation)
            participants.update(dict.fromkeys(sorted(operation.participants)))
        for account_id in participants:
            self._transactions_of.setdefault(account_id, []).append(tx)

    def tx(self, tx_hash: str) -> AppliedTx | None:
        """A transaction by its own hash, or by the hash of the one inside a fee bump."""
        return self._tx_by_hash.get(tx_hash)

    def operations_in(self, tx: AppliedTx) -> list[AppliedOperation]:
        """The operations of one transaction, in order."""
        first = bisect_left(self.operations, tx.id, key=_BY_ID)
        last = bisect_right(self.operations, tx.id + 0xFFF, key=_BY_ID)
        return self.operations[first:last]

    def operations_of(self, account_id: str) -> list[AppliedOperation]:
        """The operations that an account took part in."""
        return self._operations_of.get(account_id, [])

    def payments_of(self, account_id: str) -> list[AppliedOperation]:
        """Those of them that Horizon calls payments."""
        return self._payments_of.get(account_id, [])

    def transactions_of(self, account_id: str) -> list[AppliedTx]:
        """The transactions that an account took part in."""
        return self._transactions_of.get(account_id, [])

    def effects_of(self, account_id: str) -> list[Effect]:
        """The effects on an account."""
        return self._effects_of.get(account_id, [])

    def _append_operation(self, operation: AppliedOperation) -> None:
        self.operations.append(operation)
        if operation.is_payment:
            self.payments.append(operation)
        for account_id in sorted(operation.participants):
            self._operations_of.setdefault(account_id, []).append(operation)
            if operation.is_payment:
                self._payments_of.setdefault(account_id, []).append(operation)
        for effect in operation.effects:
            self.effects.append(effect)
            self._effects_of.setdefault(effect.account.account_id, []).append(effect)


def between(rows: Sequence[Any], low: Any, high: Any, *, descending: bool = False) -> Iterator[Any]:
    """The rows with `low < id < high`, lazily, of a list that is sorted by id."""
    first = bisect_right(rows, low, key=_BY_ID)
    last = bisect_left(rows, high, key=_BY_ID)
    indexes = range(last - 1, first - 1, -1) if descending else range(first, last)
    return (rows[i] for i in indexes)

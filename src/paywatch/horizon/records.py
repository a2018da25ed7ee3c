"""One operation as Horizon writes it -> its credits, nothing, or why it cannot be read.

Pure, and total: whatever the JSON, the answer is a `LedgerRecord`, None, or, where a record cannot
even be placed in the ledger order, a `RecordError`. A record that may concern a watched account and
cannot be read is never dropped: it comes back with its `problem` and is quarantined.

Money is what Horizon's `/payments` lists: the types of `_SHAPES` and contract calls that moved a
classic asset. No credit is held by

- a failed transaction: its amount and memo look like any other's;
- an outgoing operation;
- an operation whose payer is also the payee, whatever the muxed ids: it nets to zero. That goes for
  a path payment to oneself too, which converts the account's own money and pays nobody;
- an amount of zero (a sponsored account starts with nothing).
"""

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from paywatch.domain.ledger import Asset, Credit, LedgerRecord, Memo, Position
from paywatch.errors import InvalidInput, RecordError
from paywatch.horizon.fields import (
    Fields,
    read_address,
    read_asset,
    read_hash,
    read_muxed_id,
    read_object,
    read_position,
    read_stroops,
    read_text,
    read_time,
    read_uint64,
)
from paywatch.horizon.memos import read_memo
from paywatch.horizon.xdr import read_merged_stroops

Watched = Container[str] | None  # None: every account, to explain a record


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an operation stands: its position and its transaction."""

    operation_id: Position
    record: Fields

    @property
    def tx(self) -> Fields:
        return read_object(self.record, "transaction", "missing: read with join=transactions")


@dataclass(frozen=True, slots=True)
class _Shape:
    """Where a type of operation says who pays whom how much of what."""

    payee: str
    payer: Callable[[Fields], str]
    stroops: Callable[[Fields, _Place], int]
    asset: Callable[[Fields], Asset] = read_asset
    muxed_id: Callable[[Fields], int | None] = lambda _: None


@dataclass(frozen=True, slots=True)
class _Move:
    """One movement of money to a watched account; only who pays whom has been read."""

    change_index: int
    shape: _Shape
    fields: Fields
    account: str
    payer: str


def _address(name: str) -> Callable[[Fields], str]:
    return lambda fields: read_address(fields, name)


def _muxed(name: str) -> Callable[[Fields], int | None]:
    return lambda fields: read_muxed_id(fields, name)


def _stroops(name: str) -> Callable[[Fields, _Place], int]:
    return lambda fields, _: read_stroops(fields, name)


def _merged(_: Fields, place: _Place) -> int:
    return read_merged_stroops(place.tx, place.operation_id.operation_index)


def _native(_: Fields) -> Asset:
    return Asset.native()


def _minter(fields: Fields) -> str:
    asset = read_asset(fields)
    return asset.issuer or read_address(fields, "from")


def _change_muxed_id(fields: Fields) -> int | None:
    name = "destination_muxed_id"
    return read_uint64(fields, name) if name in fields else None


# `amount` of a path payment is what the payee received; `source_amount` is what the payer gave.
_PAYMENT: Final = _Shape("to", _address("from"), _stroops("amount"), muxed_id=_muxed("to"))
_SHAPES: Final[Mapping[str, _Shape]] = {
    "payment": _PAYMENT,
    "path_payment": _PAYMENT,  # strict_receive, before protocol 12
    "path_payment_strict_receive": _PAYMENT,
    "path_payment_strict_send": _PAYMENT,
    "create_account": _Shape(
        "account", _address("funder"), _stroops("starting_balance"), asset=_native
    ),
    "account_merge": _Shape(
        "into", _address("account"), _merged, asset=_native, muxed_id=_muxed("into")
    ),
}
# The changes of a contract call; `burn` and `clawback` only take.
_CHANGES: Final[Mapping[str, _Shape]] = {
    "transfer": _Shape("to", _address("from"), _stroops("amount"), muxed_id=_change_muxed_id),
    "mint": _Shape("to", _minter, _stroops("amount"), muxed_id=_change_muxed_id),
}
_TAKING_CHANGES: Final = frozenset({"burn", "clawback"})

# Known types that Horizon does not list as payments.
_NOT_PAYMENTS: Final = frozenset(
    {
        "allow_trust",
        "begin_sponsoring_future_reserves",
        "bump_sequence",
        "change_trust",
        "claim_claimable_balance",
        "clawback",
        "clawback_claimable_balance",
        "create_claimable_balance",
        "create_passive_offer",
        "create_passive_sell_offer",
        "end_sponsoring_future_reserves",
        "extend_footprint_ttl",
        "inflation",
        "liquidity_pool_deposit",
        "liquidity_pool_withdraw",
        "manage_buy_offer",
        "manage_data",
        "manage_offer",
        "manage_sell_offer",
        "restore_footprint",
        "revoke_sponsorship",
        "set_options",
        "set_trust_line_flags",
    }
)


def parse_record(record: Mapping[str, Any], watched: Watched) -> LedgerRecord | None:
    """Read the credits to watched accounts out of an operation; None if there are none.

    Raises:
        RecordError: the record has no usable `paging_token`: it cannot be placed.
    """
    operation_id = read_position(record)
    try:
        credits_ = _read_credits(_Place(operation_id, record), watched)
    except (RecordError, InvalidInput) as error:
        return LedgerRecord(operation_id, (), str(error), record)
    return LedgerRecord(operation_id, credits_, None, record) if credits_ else None


def _read_credits(place: _Place, watched: Watched) -> tuple[Credit, ...]:
    record = place.record
    if record.get("transaction_successful") is False:
        return ()
    moves = list(_moves(record, watched))
    if not moves:
        return ()
    if record.get("transaction_successful") is not True:
        raise RecordError("transaction_successful: must be true or false")
    read = _CreditReader.of(place)
    found = (read.credit(move) for move in moves)
    return tuple(credit for credit in found if credit.amount)


def _moves(record: Fields, watched: Watched) -> Iterator[_Move]:
    kind = read_text(record, "type")
    if kind in _SHAPES:
        yield from _move(0, _SHAPES[kind], record, watched)
    elif kind == "invoke_host_function":
        yield from _contract_moves(record, watched)
    elif kind not in _NOT_PAYMENTS and _may_concern(record, watched):
        raise RecordError(f"type: {kind[:60]!r} is unknown to this version")


def _contract_moves(record: Fields, watched: Watched) -> Iterator[_Move]:
    changes = record.get("asset_balance_changes", ())
    if changes is None:  # Go's empty list
        return
    if not isinstance(changes, list | tuple) or "asset_balance_changes" not in record:
        raise RecordError("asset_balance_changes: must be a list")
    for index, change in enumerate(changes):
        if not isinstance(change, Mapping):
            raise RecordError(f"asset_balance_changes[{index}]: must be an object")
        kind = read_text(change, "type")
        if kind in _CHANGES:
            yield from _move(index, _CHANGES[kind], change, watched)
        elif kind not in _TAKING_CHANGES and _may_concern(change, watched):
            raise RecordError(f"asset_balance_changes[{index}].type: {kind[:60]!r} is unknown")


def _move(index: int, shape: _Shape, fields: Fields, watched: Watched) -> Iterator[_Move]:
    account = read_address(fields, shape.payee)
    if watched is None or account in watched:
        payer = shape.payer(fields)
        if payer != account:
            yield _Move(index, shape, fields, account, payer)


def _may_concern(fields: Fields, watched: Watched) -> bool:
    """Tell whether a watched account is named anywhere but in the transaction."""
    pending: list[Any] = [value for name, value in fields.items() if name != "transaction"]
    while watched is not None and pending:
        value = pending.pop()
        if isinstance(value, str) and value in watched:
            return True
        if isinstance(value, Mapping):
            pending.extend(value.values())
        elif isinstance(value, list | tuple):
            pending.extend(value)
    return watched is None


@dataclass(frozen=True, slots=True)
class _CreditReader:
    """What all credits of one operation share."""

    place: _Place
    tx_hash: str
    inner_tx_hash: str | None
    memo: Memo
    closed_at: datetime

    @classmethod
    def of(cls, place: _Place) -> "_CreditReader":
        tx = place.tx
        if tx.get("successful", True) is not True:
            raise RecordError("transaction.successful: contradicts transaction_successful")
        tx_hash, inner_tx_hash = _read_hashes(place.record, tx)
        closed_at = read_time(place.record, "created_at")
        return cls(place, tx_hash, inner_tx_hash, read_memo(tx), closed_at)

    def credit(self, move: _Move) -> Credit:
        shape, fields = move.shape, move.fields
        return Credit(
            operation_id=self.place.operation_id,
            change_index=move.change_index,
            account=move.account,
            muxed_id=shape.muxed_id(fields),
            asset=shape.asset(fields),
            amount=shape.stroops(fields, self.place),
            tx_hash=self.tx_hash,
            inner_tx_hash=self.inner_tx_hash,
            payer=move.payer,
            memo=self.memo,
            closed_at=self.closed_at,
        )


def _read_hashes(record: Fields, tx: Fields) -> tuple[str, str | None]:
    """Read the outer hash, by which a payment is identified, and the inner one of a fee bump.

    Horizon echoes the hash that it was asked for, so that a transaction asked for by its inner
    hash bears that one.
    """
    named = {read_hash(record, "transaction_hash"), read_hash(tx, "hash")}
    outer, inner = named, None
    if "inner_transaction" in tx:
        inner = read_hash(read_object(tx, "inner_transaction"), "hash")
        outer = named - {inner}
    if "fee_bump_transaction" in tx:
        outer = outer | {read_hash(read_object(tx, "fee_bump_transaction"), "hash")}
    if len(outer) != 1:
        raise RecordError("transaction_hash: is not the hash of the embedded transaction")
    return outer.pop(), inner

"""What Horizon writes of an operation of each type, and who took part in it.

After `internal/ingest/processors/operations_processor.go` and the structs of
`protocols/horizon/operations/main.go`: the order of the fields is theirs, and a muxed id of 0 is
dropped although `…_muxed` stays (`omitempty`).
"""

import base64
from collections.abc import Callable
from typing import Any, Final

from stellar_sdk import (
    AccountMerge,
    Asset,
    ChangeTrust,
    CreateAccount,
    InvokeHostFunction,
    ManageData,
    MuxedAccount,
    Operation,
    PathPaymentStrictReceive,
    PathPaymentStrictSend,
    Payment,
    SetOptions,
    xdr,
)

from paywatch.domain.ledger import format_stroops
from paywatch.sim import contracts
from paywatch.sim.contracts import Transfer
from paywatch.sim.operations import Outcome, kind_of, stroops
from paywatch.sim.results import inner

Details = dict[str, Any]

_TO_MUXED: Final = (AccountMerge, PathPaymentStrictReceive, PathPaymentStrictSend, Payment)
_PAYMENTS: Final = (CreateAccount, *_TO_MUXED)
_FLAGS: Final = {
    1: "auth_required",
    2: "auth_revocable",
    4: "auth_immutable",
    8: "auth_clawback_enabled",
}
# The names of an SCVal's arms in Go, where they are not its type's in capitals.
_ARMS: Final = {
    "BOOL": "B",
    "STRING": "Str",
    "SYMBOL": "Sym",
    "CONTRACT_INSTANCE": "Instance",
    "LEDGER_KEY_NONCE": "NonceKey",
}


def operation_details(
    operation: Operation, source: MuxedAccount, outcome: Outcome, *, successful: bool
) -> Details:
    """The fields that an operation's type adds to its record."""
    write = _DETAILS.get(type(operation))
    if write is None:
        return {}
    return write(operation, source, outcome if successful else None)


def is_payment(operation: Operation, outcome: Outcome, *, successful: bool) -> bool:
    """Whether `/payments` lists it: a contract call only if an asset's contract told of it."""
    called = successful and outcome.transfer is not None
    return isinstance(operation, _PAYMENTS) or called


def participants(
    operation: Operation, source: MuxedAccount, outcome: Outcome, *, successful: bool
) -> frozenset[str]:
    """The accounts whose lists show the operation, also if it failed."""
    found = {source.account_id}
    if isinstance(operation, CreateAccount):
        found.add(operation.destination)
    elif isinstance(operation, _TO_MUXED):
        found.add(operation.destination.account_id)
    elif successful and outcome.transfer is not None:
        transfer = outcome.transfer
        parties = (transfer.sender, transfer.receiver)
        found.update(a for a in parties if a is not None and a.startswith("G"))
    return frozenset(found)


def kind_name(operation: Operation) -> tuple[str, int]:
    """Horizon's `type` and `type_i`."""
    kind = kind_of(operation)
    return kind.name.lower(), int(kind)


def muxed_fields(prefix: str, account: MuxedAccount) -> Details:
    """`to`, `to_muxed` and `to_muxed_id`, as far as they are there and not 0."""
    fields: Details = {prefix: account.account_id}
    if account.account_muxed_id is not None:
        fields[f"{prefix}_muxed"] = account.account_muxed
        if account.account_muxed_id:
            fields[f"{prefix}_muxed_id"] = str(account.account_muxed_id)
    return fields


def asset_fields(asset: Asset, prefix: str = "") -> Details:
    """`asset_type`, and `asset_code` and `asset_issuer` but for the native asset."""
    if asset.is_native():
        return {f"{prefix}asset_type": "native"}
    return {
        f"{prefix}asset_type": asset.type,
        f"{prefix}asset_code": asset.code,
        f"{prefix}asset_issuer": asset.issuer,
    }


def amount(text: str) -> str:
    """An operation's amount with 7 places."""
    return format_stroops(stroops(text))


def _create_account(op: CreateAccount, source: MuxedAccount, _: Outcome | None) -> Details:
    return {
        "starting_balance": amount(op.starting_balance),
        **muxed_fields("funder", source),
        "account": op.destination,
    }


def _payment(op: Payment, source: MuxedAccount, _: Outcome | None) -> Details:
    return _paid(op.asset, source, op.destination, amount(op.amount))


def _paid(asset: Asset, source: MuxedAccount, to: MuxedAccount, paid: str) -> Details:
    return {
        **asset_fields(asset),
        **muxed_fields("from", source),
        **muxed_fields("to", to),
        "amount": paid,
    }


def _strict_receive(
    op: PathPaymentStrictReceive, source: MuxedAccount, outcome: Outcome | None
) -> Details:
    sent = sent_by(outcome.result, stroops(op.dest_amount)) if outcome else 0
    return {
        **_paid(op.dest_asset, source, op.destination, amount(op.dest_amount)),
        "path": [asset_fields(asset) for asset in op.path],
        "source_amount": format_stroops(sent),
        "source_max": amount(op.send_max),
        **asset_fields(op.send_asset, "source_"),
    }


def _strict_send(
    op: PathPaymentStrictSend, source: MuxedAccount, outcome: Outcome | None
) -> Details:
    received = received_by(outcome.result) if outcome else 0
    return {
        **_paid(op.dest_asset, source, op.destination, format_stroops(received)),
        "path": [asset_fields(asset) for asset in op.path],
        "source_amount": amount(op.send_amount),
        "destination_min": amount(op.dest_min),
        **asset_fields(op.send_asset, "source_"),
    }


def sent_by(result: xdr.OperationResult, received: int) -> int:
    """What the sender of a strict receive gave: to the first offers, or as it was received."""
    claims = inner(result).success.offers
    return int(claims[0].order_book.amount_bought.int64) if claims else received


def received_by(result: xdr.OperationResult) -> int:
    """What the destination of a strict send got."""
    return int(inner(result).success.last.amount.int64)


def _merge(op: AccountMerge, source: MuxedAccount, _: Outcome | None) -> Details:
    return {**muxed_fields("account", source), **muxed_fields("into", op.destination)}


def _change_trust(op: ChangeTrust, source: MuxedAccount, _: Outcome | None) -> Details:
    limit, trustor = {"limit": amount(op.limit)}, muxed_fields("trustor", source)
    if not isinstance(op.asset, Asset):
        pool = {"liquidity_pool_id": op.asset.liquidity_pool_id}
        return {"asset_type": "liquidity_pool_shares", **pool, **limit, **trustor}
    trustee = {} if op.asset.is_native() else {"trustee": op.asset.issuer}
    return {**asset_fields(op.asset), **limit, **trustee, **trustor}


def _manage_data(op: ManageData, _: MuxedAccount, __: Outcome | None) -> Details:
    value = "" if op.data_value is None else base64.b64encode(op.data_value).decode()
    return {"name": op.data_name, "value": value}


def _set_options(op: SetOptions, _: MuxedAccount, __: Outcome | None) -> Details:
    fields: Details = {
        "home_domain": op.home_domain or None,
        "inflation_dest": op.inflation_dest,
        "master_key_weight": op.master_weight,
        "signer_key": op.signer.signer_key.encoded_signer_key if op.signer else None,
        "signer_weight": op.signer.weight if op.signer else None,
        **_flags("set", op.set_flags),
        **_flags("clear", op.clear_flags),
        "low_threshold": op.low_threshold,
        "med_threshold": op.med_threshold,
        "high_threshold": op.high_threshold,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _flags(prefix: str, value: int | None) -> Details:
    found = [flag for flag in _FLAGS if value is not None and int(value) & flag]
    if not found:
        return {}
    return {f"{prefix}_flags": found, f"{prefix}_flags_s": [_FLAGS[flag] for flag in found]}


def _invoke(op: InvokeHostFunction, _: MuxedAccount, outcome: Outcome | None) -> Details:
    # Go names the enum's type twice; that is how the JSON has it.
    kind = op.host_function.type.name.removeprefix("HOST_FUNCTION_TYPE_").title().replace("_", "")
    transfer = outcome.transfer if outcome else None
    return {
        "function": f"HostFunctionTypeHostFunctionType{kind}",
        "parameters": [_parameter(value) for value in contracts.arguments(op) or []],
        "address": "",
        "salt": "",
        "asset_balance_changes": [_balance_change(transfer)] if transfer else None,
    }


def _parameter(value: xdr.SCVal) -> Details:
    name = value.type.name.removeprefix("SCV_")
    arm = _ARMS.get(name, name.title().replace("_", ""))
    return {"value": value.to_xdr(), "type": arm}


def _balance_change(transfer: Transfer) -> Details:
    fields: Details = {
        **asset_fields(transfer.asset),
        "type": transfer.type,
        "from": transfer.sender,
        "to": transfer.receiver,
        "amount": format_stroops(transfer.amount),
        # A string of its own here: an id of 0 is kept, unlike `to_muxed_id`.
        "destination_muxed_id": None if transfer.muxed_id is None else str(transfer.muxed_id),
    }
    return {name: value for name, value in fields.items() if value is not None}


_DETAILS: Final[dict[type[Operation], Callable[[Any, MuxedAccount, Outcome | None], Details]]] = {
    AccountMerge: _merge,
    ChangeTrust: _change_trust,
    CreateAccount: _create_account,
    InvokeHostFunction: _invoke,
    ManageData: _manage_data,
    PathPaymentStrictReceive: _strict_receive,
    PathPaymentStrictSend: _strict_send,
    Payment: _payment,
    SetOptions: _set_options,
}

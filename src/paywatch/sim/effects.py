"""The effects of an operation that succeeded, after Horizon's `effects_processor.go`.

Of `set_options` only the home domain has an effect here, as it alone changes the state.
"""

import base64
from collections.abc import Callable, Iterable, Sequence
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
from paywatch.sim.contracts import Transfer
from paywatch.sim.details import (
    Details,
    amount,
    asset_fields,
    muxed_fields,
    received_by,
    sent_by,
)
from paywatch.sim.exchange import MAKER
from paywatch.sim.operations import Outcome, stroops
from paywatch.sim.results import inner
from paywatch.sim.state import Change, DataEntry, DataKey, LineKey

EFFECT_TYPES: Final = {
    "account_created": 0,
    "account_removed": 1,
    "account_credited": 2,
    "account_debited": 3,
    "account_home_domain_updated": 5,
    "signer_created": 10,
    "trustline_created": 20,
    "trustline_removed": 21,
    "trustline_updated": 22,
    "trade": 33,
    "data_created": 40,
    "data_removed": 41,
    "data_updated": 42,
    "contract_credited": 96,
    "contract_debited": 97,
}

# Type, account and details of one effect.
Row = tuple[str, MuxedAccount, Details]


def operation_effects(
    operation: Operation, source: MuxedAccount, outcome: Outcome, changes: Sequence[Change]
) -> list[Row]:
    """The effects in Horizon's order."""
    return list(_EFFECTS[type(operation)](operation, source, outcome, changes))


def _create_account(op: CreateAccount, source: MuxedAccount, *_: Any) -> Iterable[Row]:
    created, balance = MuxedAccount(op.destination), amount(op.starting_balance)
    yield "account_created", created, {"starting_balance": balance}
    yield "account_debited", source, {"asset_type": "native", "amount": balance}
    signer = {"weight": 1, "public_key": op.destination, "key": ""}
    yield "signer_created", created, signer


def _payment(op: Payment, source: MuxedAccount, *_: Any) -> Iterable[Row]:
    moved = {**asset_fields(op.asset), "amount": amount(op.amount)}
    yield "account_credited", op.destination, moved
    yield "account_debited", source, moved


def _strict_receive(
    op: PathPaymentStrictReceive, source: MuxedAccount, outcome: Outcome, _: Any
) -> Iterable[Row]:
    received = stroops(op.dest_amount)
    sent = sent_by(outcome.result, received)
    yield from _path(op, source, received, sent)
    yield from _trades(source, outcome.result)


def _strict_send(
    op: PathPaymentStrictSend, source: MuxedAccount, outcome: Outcome, _: Any
) -> Iterable[Row]:
    yield from _path(op, source, received_by(outcome.result), stroops(op.send_amount))
    yield from _trades(source, outcome.result)


def _path(
    op: PathPaymentStrictReceive | PathPaymentStrictSend,
    source: MuxedAccount,
    received: int,
    sent: int,
) -> Iterable[Row]:
    got = {**asset_fields(op.dest_asset), "amount": format_stroops(received)}
    gave = {**asset_fields(op.send_asset), "amount": format_stroops(sent)}
    yield "account_credited", op.destination, got
    yield "account_debited", source, gave


def _trades(buyer: MuxedAccount, result: xdr.OperationResult) -> Iterable[Row]:
    for atom in inner(result).success.offers:
        claim = atom.order_book
        sold = _side("sold_", claim.asset_sold, claim.amount_sold)
        bought = _side("bought_", claim.asset_bought, claim.amount_bought)
        offer = {"offer_id": str(claim.offer_id.int64)}
        # What the maker sold, the buyer bought.
        mirrored = {
            **_side("sold_", claim.asset_bought, claim.amount_bought),
            **_side("bought_", claim.asset_sold, claim.amount_sold),
        }
        yield "trade", buyer, {"seller": MAKER, **offer, **mirrored}
        seller = muxed_fields("seller", buyer)
        yield "trade", MuxedAccount(MAKER), {**seller, **offer, **sold, **bought}


def _side(prefix: str, asset: xdr.Asset, value: xdr.Int64) -> Details:
    fields = asset_fields(Asset.from_xdr_object(asset), prefix)
    return {f"{prefix}amount": format_stroops(value.int64), **fields}


def _merge(op: AccountMerge, source: MuxedAccount, outcome: Outcome, _: Any) -> Iterable[Row]:
    balance = inner(outcome.result).source_account_balance.int64
    moved = {"asset_type": "native", "amount": format_stroops(balance)}
    yield "account_debited", source, moved
    yield "account_credited", op.destination, moved
    yield "account_removed", source, {}


def _change_trust(
    op: ChangeTrust, source: MuxedAccount, _: Outcome, changes: Sequence[Change]
) -> Iterable[Row]:
    if not isinstance(op.asset, Asset):
        return
    details = {**asset_fields(op.asset), "limit": amount(op.limit)}
    for change in changes:
        if isinstance(change.key, LineKey):
            before, after = change.before is None, change.after is None
            name = "created" if before else "removed" if after else "updated"
            yield f"trustline_{name}", source, details


def _manage_data(
    op: ManageData, source: MuxedAccount, _: Outcome, changes: Sequence[Change]
) -> Iterable[Row]:
    for change in changes:
        if not isinstance(change.key, DataKey):
            continue
        details: Details = {"name": op.data_name}
        if isinstance(change.after, DataEntry):
            details["value"] = base64.b64encode(change.after.value).decode()
        before, after = change.before is None, change.after is None
        name = "created" if before else "removed" if after else "updated"
        yield f"data_{name}", source, details


def _set_options(op: SetOptions, source: MuxedAccount, *_: Any) -> Iterable[Row]:
    if op.home_domain is not None:
        yield "account_home_domain_updated", source, {"home_domain": op.home_domain}


def _invoke(
    _: InvokeHostFunction, source: MuxedAccount, outcome: Outcome, __: Any
) -> Iterable[Row]:
    transfer = outcome.transfer
    if transfer is None:
        return
    if transfer.sender is not None:
        yield _party("debited", transfer.sender, None, source, transfer)
    if transfer.receiver is not None:
        yield _party("credited", transfer.receiver, transfer.muxed_id, source, transfer)


def _party(
    verb: str, address: str, muxed_id: int | None, source: MuxedAccount, transfer: Transfer
) -> Row:
    asset, moved = asset_fields(transfer.asset), {"amount": format_stroops(transfer.amount)}
    if address.startswith("C"):
        # Horizon files a contract's effects under the operation's source.
        return f"contract_{verb}", source, {**asset, "contract": address, **moved}
    return f"account_{verb}", MuxedAccount(address, muxed_id), {**asset, **moved}


_Write = Callable[[Any, MuxedAccount, Outcome, Sequence[Change]], Iterable[Row]]
_EFFECTS: Final[dict[type[Operation], _Write]] = {
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

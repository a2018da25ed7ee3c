"""What each operation does to the ledger's state, and its result as XDR.

The order of the checks, and so the code of a refusal, is stellar-core's (`src/transactions/`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from stellar_sdk import (
    AccountMerge,
    Asset,
    ChangeTrust,
    CreateAccount,
    InvokeHostFunction,
    Keypair,
    ManageData,
    Operation,
    PathPaymentStrictReceive,
    PathPaymentStrictSend,
    Payment,
    SetOptions,
    xdr,
)

from paywatch.sim import contracts
from paywatch.sim.contracts import Transfer
from paywatch.sim.exchange import MAKER, Rates, Trade
from paywatch.sim.money import Refused, credit, debit
from paywatch.sim.results import operation_result, outer_result
from paywatch.sim.state import (
    BASE_RESERVE,
    Account,
    AccountKey,
    DataEntry,
    DataKey,
    LineKey,
    State,
    TrustLine,
)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What operations of one ledger see beside its state."""

    state: State
    rates: Rates
    sequence: int
    asset_of_contract: Callable[[str], Asset | None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """An operation's result, and the transfer that a contract reported, if any."""

    result: xdr.OperationResult
    transfer: Transfer | None = None


def apply(at: Surroundings, operation: Operation, source: str) -> Outcome:
    """Apply one operation for a `G…` source; a refused one changes nothing."""
    if at.state.account(source) is None:
        return Outcome(outer_result(xdr.OperationResultCode.opNO_ACCOUNT))
    kind = kind_of(operation)
    if type(operation) not in _APPLY:
        return Outcome(outer_result(xdr.OperationResultCode.opNOT_SUPPORTED))
    mark = at.state.mark()
    try:
        return _APPLY[type(operation)](at, operation, source)
    except Refused as refused:
        at.state.roll_back(mark)
        return Outcome(operation_result(kind, refused.code))


def kind_of(operation: Operation) -> xdr.OperationType:
    """The XDR type of an operation."""
    return operation._XDR_OPERATION_TYPE  # noqa: SLF001 - the SDK has no public name for it


def stroops(amount: str) -> int:
    """An operation's decimal amount in stroops."""
    return Operation.to_xdr_amount(amount)


def xdr_account(account_id: str) -> xdr.AccountID:
    """A `G…` address as XDR."""
    return Keypair.from_public_key(account_id).xdr_account_id()


def _create_account(at: Surroundings, op: CreateAccount, source: str) -> Outcome:
    balance = stroops(op.starting_balance)
    if balance < 0 or op.destination == source:
        raise Refused("MALFORMED")
    if at.state.account(op.destination) is not None:
        raise Refused("ALREADY_EXIST")
    if balance < 2 * BASE_RESERVE:
        raise Refused("LOW_RESERVE")
    debit(at.state, source, Asset.native(), balance)
    # A new account's numbers begin at its ledger, so that a merged one's are not used again.
    at.state.put(AccountKey(op.destination), Account(balance, sequence=at.sequence << 32))
    return Outcome(operation_result(xdr.OperationType.CREATE_ACCOUNT))


def _payment(at: Surroundings, op: Payment, source: str) -> Outcome:
    amount, to = stroops(op.amount), op.destination.account_id
    if amount <= 0:
        raise Refused("MALFORMED")
    if not (op.asset.is_native() and source == to):
        credit(at.state, to, op.asset, amount)
        debit(at.state, source, op.asset, amount)
    return Outcome(operation_result(xdr.OperationType.PAYMENT))


def _strict_receive(at: Surroundings, op: PathPaymentStrictReceive, source: str) -> Outcome:
    amount, send_max = stroops(op.dest_amount), stroops(op.send_max)
    if amount <= 0 or send_max <= 0:
        raise Refused("MALFORMED")
    credit(at.state, op.destination.account_id, op.dest_asset, amount)
    trades = at.rates.receive(amount, [op.send_asset, *op.path, op.dest_asset])
    if trades is None:
        raise Refused("TOO_FEW_OFFERS")
    sent = trades[0].bought if trades else amount
    if sent > send_max:
        raise Refused("OVER_SENDMAX")
    debit(at.state, source, op.send_asset, sent)
    success = xdr.PathPaymentStrictReceiveResultSuccess(
        _claims(trades), _last(op.destination.account_id, op.dest_asset, amount)
    )
    kind = xdr.OperationType.PATH_PAYMENT_STRICT_RECEIVE
    return Outcome(operation_result(kind, success=success))


def _strict_send(at: Surroundings, op: PathPaymentStrictSend, source: str) -> Outcome:
    amount, dest_min = stroops(op.send_amount), stroops(op.dest_min)
    if amount <= 0 or dest_min <= 0:
        raise Refused("MALFORMED")
    debit(at.state, source, op.send_asset, amount)
    trades = at.rates.send(amount, [op.send_asset, *op.path, op.dest_asset])
    if trades is None:
        raise Refused("TOO_FEW_OFFERS")
    received = trades[-1].sold if trades else amount
    if received < dest_min:
        raise Refused("UNDER_DESTMIN")
    credit(at.state, op.destination.account_id, op.dest_asset, received)
    success = xdr.PathPaymentStrictSendResultSuccess(
        _claims(trades), _last(op.destination.account_id, op.dest_asset, received)
    )
    return Outcome(operation_result(xdr.OperationType.PATH_PAYMENT_STRICT_SEND, success=success))


def _merge(at: Surroundings, op: AccountMerge, source: str) -> Outcome:
    into, account = op.destination.account_id, _owner(at.state, source)
    if into == source:
        raise Refused("MALFORMED")
    if at.state.account(into) is None:
        raise Refused("NO_ACCOUNT")
    if account.subentries:
        raise Refused("HAS_SUB_ENTRIES")
    if account.sequence >= at.sequence << 32:
        raise Refused("SEQNUM_TOO_FAR")
    at.state.put(AccountKey(source), None)
    credit(at.state, into, Asset.native(), account.balance)
    return Outcome(
        operation_result(
            xdr.OperationType.ACCOUNT_MERGE, source_account_balance=xdr.Int64(account.balance)
        )
    )


def _change_trust(at: Surroundings, op: ChangeTrust, source: str) -> Outcome:
    if not isinstance(op.asset, Asset) or op.asset.is_native():
        raise Refused("MALFORMED")  # pool shares are not simulated
    limit, line = stroops(op.limit), at.state.line(source, op.asset)
    if op.asset.issuer == source:
        raise Refused("SELF_NOT_ALLOWED")
    if limit < (line.balance if line else 0) or (line is None and limit == 0):
        raise Refused("INVALID_LIMIT")
    if op.asset.issuer is None or at.state.account(op.asset.issuer) is None:
        raise Refused("NO_ISSUER")
    key = LineKey(source, op.asset)
    if line is None:
        _add_subentry(at.state, source)
        at.state.put(key, TrustLine(0, limit))
    elif limit == 0:
        _add_subentry(at.state, source, -1)
        at.state.put(key, None)
    else:
        at.state.put(key, TrustLine(line.balance, limit))
    return Outcome(operation_result(xdr.OperationType.CHANGE_TRUST))


def _manage_data(at: Surroundings, op: ManageData, source: str) -> Outcome:
    known = at.state.data(source, op.data_name) is not None
    if op.data_value is None and not known:
        raise Refused("NAME_NOT_FOUND")
    if not known:
        _add_subentry(at.state, source)
    elif op.data_value is None:
        _add_subentry(at.state, source, -1)
    entry = None if op.data_value is None else DataEntry(op.data_value)
    at.state.put(DataKey(source, op.data_name), entry)
    return Outcome(operation_result(xdr.OperationType.MANAGE_DATA))


def _set_options(at: Surroundings, op: SetOptions, source: str) -> Outcome:
    # Signers, weights and flags are recorded in history but not enforced.
    if op.home_domain is not None:
        account = replace(_owner(at.state, source), home_domain=op.home_domain)
        at.state.put(AccountKey(source), account)
    return Outcome(operation_result(xdr.OperationType.SET_OPTIONS))


def _invoke(at: Surroundings, op: InvokeHostFunction, source: str) -> Outcome:
    kind = xdr.OperationType.INVOKE_HOST_FUNCTION
    transfer = contracts.read_call(op, at.asset_of_contract)
    if transfer is None or not contracts.may_call(transfer, source):
        raise Refused("TRAPPED")
    try:
        contracts.move(at.state, transfer)
    except Refused as refused:
        raise Refused("TRAPPED") from refused
    success = xdr.Hash(contracts.success_preimage_hash(transfer))
    return Outcome(operation_result(kind, success=success), transfer)


def _add_subentry(state: State, account_id: str, count: int = 1) -> None:
    account = _owner(state, account_id)
    if count > 0 and account.spendable < BASE_RESERVE:
        raise Refused("LOW_RESERVE")
    state.put(AccountKey(account_id), replace(account, subentries=account.subentries + count))


def _owner(state: State, account_id: str) -> Account:
    account = state.account(account_id)
    assert account is not None, "apply() has checked that the source exists"  # noqa: S101 - cannot happen
    return account


def _claims(trades: list[Trade]) -> list[xdr.ClaimAtom]:
    return [
        xdr.ClaimAtom(
            xdr.ClaimAtomType.CLAIM_ATOM_TYPE_ORDER_BOOK,
            order_book=xdr.ClaimOfferAtom(
                seller_id=xdr_account(MAKER),
                offer_id=xdr.Int64(trade.offer_id),
                asset_sold=trade.asset_sold.to_xdr_object(),
                amount_sold=xdr.Int64(trade.sold),
                asset_bought=trade.asset_bought.to_xdr_object(),
                amount_bought=xdr.Int64(trade.bought),
            ),
        )
        for trade in trades
    ]


def _last(destination: str, asset: Asset, amount: int) -> xdr.SimplePaymentResult:
    return xdr.SimplePaymentResult(
        xdr_account(destination), asset.to_xdr_object(), xdr.Int64(amount)
    )


_APPLY: Final[dict[type[Operation], Callable[[Surroundings, Any, str], Outcome]]] = {
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

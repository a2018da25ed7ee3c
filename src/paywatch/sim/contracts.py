"""The Stellar Asset Contract's `transfer` and `mint`, the one contract that moves classic assets.

A call's `from` must be the operation's source account, or a contract: what a contract wallet
would have checked is not simulated, only its balance is. The event is CAP-67's: a transfer from
the issuer is a `mint`, one to the issuer a `burn`, and a muxed destination appears as the
account and a separate id.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from stellar_sdk import Address, Asset, InvokeHostFunction, MuxedAccount, scval, xdr
from stellar_sdk.address import AddressType

from paywatch.sim.money import credit, credit_contract, debit, debit_contract
from paywatch.sim.state import State

_INVOKE: Final = xdr.HostFunctionType.HOST_FUNCTION_TYPE_INVOKE_CONTRACT


@dataclass(frozen=True, slots=True)
class Transfer:
    """One event of an asset's contract; addresses are `G…` or `C…`, the amount is 128 bits wide.

    `sender` is None for a mint, `receiver` for a burn.
    """

    type: str
    contract_id: str
    asset: Asset
    sender: str | None
    receiver: str | None
    amount: int
    muxed_id: int | None = None


def arguments(op: InvokeHostFunction) -> list[xdr.SCVal] | None:
    """Contract, function and arguments of a call as values; None if it is no contract call."""
    call = op.host_function.invoke_contract
    if op.host_function.type != _INVOKE or call is None:
        return None
    contract = xdr.SCVal(xdr.SCValType.SCV_ADDRESS, address=call.contract_address)
    function = xdr.SCVal(xdr.SCValType.SCV_SYMBOL, sym=call.function_name)
    return [contract, function, *call.args]


def read_call(
    op: InvokeHostFunction, asset_of_contract: Callable[[str], Asset | None]
) -> Transfer | None:
    """Read a call of an asset's contract; None if it is anything else."""
    values = arguments(op)
    if values is None:
        return None
    contract_id = scval.from_address(values[0]).address
    asset = asset_of_contract(contract_id)
    if asset is None:
        return None
    try:
        function, args = scval.from_symbol(values[1]), values[2:]
        if function == "mint" and not asset.is_native():
            args = [scval.to_address(asset.issuer or ""), *args]
        elif function != "transfer":
            return None
        sender, receiver, value = args
        return _transfer(
            contract_id,
            asset,
            scval.from_address(sender),
            scval.from_address(receiver),
            scval.from_int128(value),
        )
    except ValueError:
        return None  # wrong number or types of arguments: the contract traps


def may_call(transfer: Transfer, source: str) -> bool:
    """Whether the operation's source account authorises this transfer."""
    sender = transfer.sender or transfer.asset.issuer or ""
    return transfer.amount >= 0 and (sender == source or sender.startswith("C"))


def move(state: State, transfer: Transfer) -> None:
    """Do what the event says.

    Raises:
        Refused: the balance, the trust line or the destination does not allow it.
    """
    if transfer.sender is not None:
        take = debit_contract if transfer.sender.startswith("C") else debit
        take(state, transfer.sender, transfer.asset, transfer.amount)
    if transfer.receiver is not None:
        give = credit_contract if transfer.receiver.startswith("C") else credit
        give(state, transfer.receiver, transfer.asset, transfer.amount)


def event(transfer: Transfer) -> xdr.ContractEvent:
    """The contract event as XDR, with CAP-67's map as its data where the destination is muxed."""
    parties = [a for a in (transfer.sender, transfer.receiver) if a is not None]
    topics = [
        scval.to_symbol(transfer.type),
        *(scval.to_address(address) for address in parties),
        scval.to_string(_sep11(transfer.asset)),
    ]
    amount = scval.to_int128(transfer.amount)
    if transfer.muxed_id is not None:
        amount = scval.to_struct(
            {"amount": amount, "to_muxed_id": scval.to_uint64(transfer.muxed_id)}
        )
    contract = Address(transfer.contract_id).to_xdr_sc_address().contract_id
    return xdr.ContractEvent(
        xdr.ExtensionPoint(0),
        contract,
        xdr.ContractEventType.CONTRACT,
        xdr.ContractEventBody(0, v0=xdr.ContractEventV0(topics, amount)),
    )


def success_preimage_hash(transfer: Transfer) -> bytes:
    """The hash in a successful call's result: of its return value and events."""
    preimage = xdr.InvokeHostFunctionSuccessPreImage(scval.to_void(), [event(transfer)])
    return hashlib.sha256(preimage.to_xdr_bytes()).digest()


def _transfer(
    contract_id: str, asset: Asset, sender: Address, receiver: Address, amount: int
) -> Transfer:
    muxed_id, to = None, receiver.address
    if receiver.type == AddressType.MUXED_ACCOUNT:
        muxed = MuxedAccount.from_account(to)
        muxed_id, to = muxed.account_muxed_id, muxed.account_id
    minted, burnt = sender.address == asset.issuer, to == asset.issuer
    kind = "transfer" if minted == burnt else ("mint" if minted else "burn")
    return Transfer(
        kind,
        contract_id,
        asset,
        None if kind == "mint" else sender.address,
        None if kind == "burn" else to,
        amount,
        None if kind == "burn" else muxed_id,
    )


def _sep11(asset: Asset) -> str:
    return "native" if asset.is_native() else f"{asset.code}:{asset.issuer}"

"""Moving balances of accounts and contracts, with the refusals that Stellar knows."""

from dataclasses import replace

from stellar_sdk import Asset

from paywatch.sim.state import (
    MAX_INT64,
    AccountKey,
    ContractBalance,
    ContractKey,
    LineKey,
    State,
)


class Refused(Exception):
    """An operation was refused; `code` is Stellar's name less the operation's prefix."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def debit(state: State, account_id: str, asset: Asset, amount: int) -> None:
    """Take an amount from an account; an issuer's own asset comes from nowhere.

    Raises:
        Refused: `SRC_NO_TRUST` or `UNDERFUNDED`.
    """
    if asset.is_native():
        account = state.account(account_id)
        if account is None or account.spendable < amount:
            raise Refused("UNDERFUNDED")
        state.put(AccountKey(account_id), replace(account, balance=account.balance - amount))
    elif asset.issuer != account_id:
        line = state.line(account_id, asset)
        if line is None:
            raise Refused("SRC_NO_TRUST")
        if line.balance < amount:
            raise Refused("UNDERFUNDED")
        state.put(LineKey(account_id, asset), replace(line, balance=line.balance - amount))


def credit(state: State, account_id: str, asset: Asset, amount: int) -> None:
    """Give an amount to an account; an issuer's own asset goes nowhere.

    Raises:
        Refused: `NO_DESTINATION`, `NO_TRUST` or `LINE_FULL`.
    """
    account = state.account(account_id)
    if account is None:
        raise Refused("NO_DESTINATION")
    if asset.is_native():
        if account.balance + amount > MAX_INT64:
            raise Refused("LINE_FULL")
        state.put(AccountKey(account_id), replace(account, balance=account.balance + amount))
    elif asset.issuer != account_id:
        line = state.line(account_id, asset)
        if line is None:
            raise Refused("NO_TRUST")
        if line.balance + amount > line.limit:
            raise Refused("LINE_FULL")
        state.put(LineKey(account_id, asset), replace(line, balance=line.balance + amount))


def debit_contract(state: State, contract_id: str, asset: Asset, amount: int) -> None:
    """Take an amount from a contract.

    Raises:
        Refused: `UNDERFUNDED`.
    """
    balance = state.contract_balance(contract_id, asset)
    if balance < amount:
        raise Refused("UNDERFUNDED")
    state.put(ContractKey(contract_id, asset), ContractBalance(balance - amount))


def credit_contract(state: State, contract_id: str, asset: Asset, amount: int) -> None:
    """Give an amount to a contract."""
    balance = state.contract_balance(contract_id, asset)
    state.put(ContractKey(contract_id, asset), ContractBalance(balance + amount))

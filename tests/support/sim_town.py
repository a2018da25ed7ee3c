"""A simulated ledger without a server, with its usual inhabitants."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

from stellar_sdk import (
    Asset,
    ChangeTrust,
    CreateAccount,
    FeeBumpTransactionEnvelope,
    TransactionEnvelope,
)

from paywatch.sim import Ledger, LedgerSettings, Wallet, asset_of
from paywatch.sim.envelopes import root_keypair
from paywatch.sim.history import AppliedOperation, AppliedTx, ClosedLedger
from paywatch.sim.records import operation_record, tx_record

START = datetime(2026, 1, 1, tzinfo=UTC)
USD = asset_of("USD", "issuer")
URL = "http://horizon.test"


@dataclass(slots=True)
class Town:
    """A ledger with alice, bob and an issuer of USD, whom bob trusts."""

    ledger: Ledger
    root: Wallet
    alice: Wallet
    bob: Wallet
    issuer: Wallet

    def wallet(self, name: str) -> Wallet:
        return Wallet.named(name, self.ledger.passphrase, self.ledger.next_sequence)

    def close(self, seconds: int = 5) -> ClosedLedger:
        return self.ledger.close(self.ledger.latest.closed_at + timedelta(seconds=seconds))

    def settle(self, envelope: TransactionEnvelope | FeeBumpTransactionEnvelope) -> AppliedTx:
        """Submit one envelope and close its ledger."""
        tx_hash = self.ledger.submit(envelope.to_xdr()).hash.hex()
        closed = self.close()
        tx = self.ledger.history.tx(tx_hash)
        assert tx is not None, closed.refused
        return tx

    def operations(self, tx: AppliedTx) -> Sequence[AppliedOperation]:
        return self.ledger.history.operations_in(tx)

    def record(self, tx: AppliedTx, *, join: bool = False) -> dict[str, Any]:
        """Horizon's record of a transaction's only operation."""
        (operation,) = self.operations(tx)
        return operation_record(operation, URL, join=join)

    def tx_record(self, tx: AppliedTx) -> dict[str, Any]:
        return tx_record(tx, URL)

    def lumens(self, wallet: Wallet) -> int:
        account = self.ledger.state.account(wallet.account_id)
        assert account is not None
        return account.balance

    def dollars(self, wallet: Wallet) -> int:
        line = self.ledger.state.line(wallet.account_id, USD)
        assert line is not None
        return line.balance


def make_town() -> Town:
    """A new town; everybody has 1,000 lumens to begin with."""
    rates = {(Asset.native(), USD): Fraction(1, 8)}
    ledger = Ledger(START, LedgerSettings(rates=rates))
    root = Wallet(root_keypair(ledger.passphrase), ledger.passphrase, ledger.next_sequence)
    names = ("alice", "bob", "issuer")
    wallets = [Wallet.named(n, ledger.passphrase, ledger.next_sequence) for n in names]
    town = Town(ledger, root, *wallets)
    town.settle(root.build([CreateAccount(w.account_id, "1000") for w in wallets]))
    town.settle(town.bob.build([ChangeTrust(USD)]))
    return town

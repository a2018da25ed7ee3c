"""A payer: makes, signs and hands over real envelopes.

A wallet's key comes from its name, so the same name is the same account in every run and process.
Amounts are decimal strings, as in the SDK.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from stellar_sdk import (
    Account,
    Address,
    Asset,
    FeeBumpTransactionEnvelope,
    Keypair,
    Memo,
    MuxedAccount,
    Operation,
    PathPaymentStrictReceive,
    PathPaymentStrictSend,
    Payment,
    TimeBounds,
    TransactionBuilder,
    TransactionEnvelope,
    scval,
    xdr,
)

BASE_FEE: Final = 100  # stroops an operation
RESOURCE_FEE: Final = 50_000  # stroops that a contract call offers for its resources
NATIVE: Final = Asset.native()


def seed_of(name: str) -> bytes:
    """A 32-byte seed from a name."""
    return hashlib.sha256(f"paywatch simulated account {name}".encode()).digest()


def keypair_of(name: str) -> Keypair:
    """The keys that belong to a name."""
    return Keypair.from_raw_ed25519_seed(seed_of(name))


def asset_of(code: str, issuer_name: str) -> Asset:
    """The asset of an issuer that is known by name, before the issuer exists."""
    return Asset(code, keypair_of(issuer_name).public_key)


@dataclass(frozen=True, slots=True)
class Wallet:
    """One account's keys.

    Args:
        keypair: signs.
        passphrase: the network that the signatures are for.
        next_sequence: tells the sequence number that the account's next transaction must use;
            asked once for each envelope that is built.
    """

    keypair: Keypair
    passphrase: str
    next_sequence: Callable[[str], int]

    @classmethod
    def named(cls, name: str, passphrase: str, next_sequence: Callable[[str], int]) -> "Wallet":
        """The wallet that belongs to a name."""
        return cls(keypair_of(name), passphrase, next_sequence)

    @property
    def account_id(self) -> str:
        """The `G…` address."""
        return self.keypair.public_key

    def muxed(self, muxed_id: int) -> str:
        """An `M…` address of this account."""
        address = MuxedAccount(self.account_id, muxed_id).account_muxed
        assert address is not None, "an id was given"  # noqa: S101 - for the type checker
        return address

    def asset(self, code: str) -> Asset:
        """An asset that this account issues."""
        return Asset(code, self.account_id)

    def build(
        self,
        operations: Sequence[Operation],
        memo: Memo | None = None,
        *,
        source: str | None = None,
        time_bounds: TimeBounds | None = None,
        resource_fee: int = 0,
    ) -> TransactionEnvelope:
        """Sign a transaction of any operations; `source` may be an `M…` address of this account."""
        sequence = self.next_sequence(self.account_id)
        account = Account(source or self.account_id, sequence - 1)
        builder = TransactionBuilder(account, self.passphrase, base_fee=BASE_FEE)
        for operation in operations:
            builder.append_operation(operation)
        if memo is not None:
            builder.add_memo(memo)
        if resource_fee:
            builder.set_soroban_data(_soroban_data(resource_fee))
        builder.time_bounds = time_bounds or TimeBounds(0, 0)
        envelope = builder.build()
        envelope.sign(self.keypair)
        return envelope

    def pay(
        self,
        destination: str,
        amount: str,
        asset: Asset = NATIVE,
        memo: Memo | None = None,
        *,
        source: str | None = None,
    ) -> TransactionEnvelope:
        """One payment; `destination` is `G…` or `M…`."""
        return self.build([Payment(destination, asset, amount)], memo, source=source)

    def path_receive(
        self,
        destination: str,
        amount: str,
        asset: Asset,
        *,
        send_max: str,
        memo: Memo | None = None,
    ) -> TransactionEnvelope:
        """The destination gets exactly `amount`; at most `send_max` lumens are spent."""
        payment = PathPaymentStrictReceive(destination, NATIVE, send_max, asset, amount, [])
        return self.build([payment], memo)

    def path_send(
        self,
        destination: str,
        send_amount: str,
        asset: Asset,
        *,
        dest_min: str,
        memo: Memo | None = None,
    ) -> TransactionEnvelope:
        """Exactly `send_amount` lumens are spent; the destination gets at least `dest_min`."""
        payment = PathPaymentStrictSend(destination, NATIVE, send_amount, asset, dest_min, [])
        return self.build([payment], memo)

    def transfer(
        self, destination: str, stroops: int, asset: Asset = NATIVE, sender: str | None = None
    ) -> TransactionEnvelope:
        """Call `transfer` of the asset's contract; `destination` is `G…`, `M…` or `C…`.

        `sender` may be a contract (`C…`): then this account only pays the fee, as the relayer of
        a contract wallet.
        """
        arguments = [
            Address(sender or self.account_id).to_xdr_sc_val(),
            Address(destination).to_xdr_sc_val(),
            scval.to_int128(stroops),
        ]
        builder = TransactionBuilder(Account(self.account_id, 0), self.passphrase)
        builder.append_invoke_contract_function_op(
            asset.contract_id(self.passphrase), "transfer", arguments
        )
        return self.build(builder.operations, resource_fee=RESOURCE_FEE)

    def fee_bump(
        self, inner: TransactionEnvelope, fee: int = BASE_FEE
    ) -> FeeBumpTransactionEnvelope:
        """Pay the fee of somebody's signed transaction; `fee` in stroops for each operation."""
        bump = TransactionBuilder.build_fee_bump_transaction(
            self.account_id, max(fee, BASE_FEE), inner, self.passphrase
        )
        bump.sign(self.keypair)
        return bump


def _soroban_data(resource_fee: int) -> xdr.SorobanTransactionData:
    """What a contract call declares; the simulated ledger reads only the fee."""
    nothing = xdr.LedgerFootprint([], [])
    zero = xdr.Uint32(0)
    return xdr.SorobanTransactionData(
        xdr.SorobanTransactionDataExt(0),
        xdr.SorobanResources(nothing, zero, zero, zero),
        xdr.Int64(resource_fee),
    )

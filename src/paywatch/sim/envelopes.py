"""Signed envelopes: reading them, and the checks before a transaction may enter a ledger.

The order of the checks is stellar-core's (`TransactionFrame::commonValid`). Only master keys sign:
the signers and thresholds of `set_options` are not simulated.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from stellar_sdk import (
    DecoratedSignature,
    FeeBumpTransactionEnvelope,
    InvokeHostFunction,
    Keypair,
    MuxedAccount,
    NoneMemo,
    Transaction,
    TransactionEnvelope,
    xdr,
)
from stellar_sdk.exceptions import BadSignatureError

from paywatch.sim.results import fee_bump_result, outer_result, tx_result
from paywatch.sim.state import State

BASE_FEE: Final = 100  # stroops an operation
_Code = xdr.TransactionResultCode


class MalformedEnvelope(ValueError):
    """The bytes are no signed transaction."""


@dataclass(frozen=True, slots=True)
class SignedTx:
    """A transaction with its signatures; `inner_hash` is None where nobody else pays the fee.

    `fee` is the most that `fee_source` is willing to pay, in stroops.
    """

    envelope_xdr: str
    hash: bytes
    inner_hash: bytes | None
    tx: Transaction
    signatures: tuple[DecoratedSignature, ...]
    inner_signatures: tuple[DecoratedSignature, ...]
    fee_source: MuxedAccount
    fee: int

    @property
    def source(self) -> str:
        """The `G…` address whose sequence number is used."""
        return self.tx.source.account_id

    @property
    def resource_fee(self) -> int:
        """What a contract call pays for its resources, in stroops."""
        return self.tx.soroban_data.resource_fee.int64 if self.tx.soroban_data else 0

    @property
    def fee_charged(self) -> int:
        """What the ledger takes: the base fee for each operation, and for the fee bump itself."""
        operations = len(self.tx.operations) + (self.inner_hash is not None)
        return BASE_FEE * operations + self.resource_fee


@dataclass(frozen=True, slots=True)
class Moment:
    """What a transaction is checked against: the ledger that would hold it.

    `next_sequence` is the number that its source account must use; `closed_at` is in Unix seconds.
    """

    state: State
    ledger: int
    closed_at: int
    next_sequence: int


def read_envelope(envelope_xdr: str, passphrase: str) -> SignedTx:
    """Read a base64 envelope.

    Raises:
        MalformedEnvelope: not the XDR of a transaction or fee bump (V0 is of the past).
    """
    try:
        envelope = xdr.TransactionEnvelope.from_xdr(envelope_xdr)
        if envelope.type == xdr.EnvelopeType.ENVELOPE_TYPE_TX_FEE_BUMP:
            return _read_fee_bump(envelope, envelope_xdr, passphrase)
        if envelope.type == xdr.EnvelopeType.ENVELOPE_TYPE_TX:
            return _read_plain(envelope, envelope_xdr, passphrase)
    except Exception as error:  # any bytes may come here: whatever the parser stumbles over
        raise MalformedEnvelope(f"not a transaction envelope: {error}") from error
    raise MalformedEnvelope(f"envelopes of type {envelope.type.name} are not taken")


def refusal(signed: SignedTx, at: Moment) -> xdr.TransactionResult | None:
    """Why a transaction may not enter the ledger; None if it may."""
    if signed.inner_hash is None:
        return _refusal(signed, at, signed.hash, signed.signatures, pays=True)
    code = _fee_bump_refusal(signed, at)
    if code is not None:
        return tx_result(code)
    inner = _refusal(signed, at, signed.inner_hash, signed.inner_signatures, pays=False)
    return fee_bump_result(signed.inner_hash, inner, 0) if inner else None


def _read_plain(envelope: xdr.TransactionEnvelope, text: str, passphrase: str) -> SignedTx:
    plain = TransactionEnvelope.from_xdr_object(envelope, passphrase)
    tx = plain.transaction
    return SignedTx(text, plain.hash(), None, tx, tuple(plain.signatures), (), tx.source, tx.fee)


def _read_fee_bump(envelope: xdr.TransactionEnvelope, text: str, passphrase: str) -> SignedTx:
    bump = FeeBumpTransactionEnvelope.from_xdr_object(envelope, passphrase)
    inner = bump.transaction.inner_transaction_envelope
    return SignedTx(
        text,
        bump.hash(),
        inner.hash(),
        inner.transaction,
        tuple(bump.signatures),
        tuple(inner.signatures),
        bump.transaction.fee_source,
        bump.transaction.fee,
    )


def _fee_bump_refusal(signed: SignedTx, at: Moment) -> _Code | None:
    account = at.state.account(signed.fee_source.account_id)
    if signed.fee < signed.fee_charged:
        return _Code.txINSUFFICIENT_FEE
    if account is None:
        return _Code.txNO_ACCOUNT
    signatures = _Signatures(signed.hash, signed.signatures)
    if not signatures.by(signed.fee_source.account_id):
        return _Code.txBAD_AUTH
    if account.spendable < signed.fee_charged:
        return _Code.txINSUFFICIENT_BALANCE
    return None if signatures.all_used else _Code.txBAD_AUTH_EXTRA


def _refusal(
    signed: SignedTx,
    at: Moment,
    tx_hash: bytes,
    decorated: Sequence[DecoratedSignature],
    *,
    pays: bool,
) -> xdr.TransactionResult | None:
    code = _form_refusal(signed.tx) or _time_refusal(signed.tx, at)
    account = at.state.account(signed.source)
    if code is None and pays and signed.fee < signed.fee_charged:
        code = _Code.txINSUFFICIENT_FEE
    elif code is None and account is None:
        code = _Code.txNO_ACCOUNT
    elif code is None and signed.tx.sequence != at.next_sequence:
        code = _Code.txBAD_SEQ
    if code is not None:
        return tx_result(code)
    signatures = _Signatures(tx_hash, decorated)
    if not signatures.by(signed.source):
        return tx_result(_Code.txBAD_AUTH)
    if pays and account is not None and account.spendable < signed.fee_charged:
        return tx_result(_Code.txINSUFFICIENT_BALANCE)
    return _operations_refusal(signed.tx, signatures)


def _form_refusal(tx: Transaction) -> _Code | None:
    if not tx.operations:
        return _Code.txMISSING_OPERATION
    if not any(isinstance(op, InvokeHostFunction) for op in tx.operations):
        return None
    if len(tx.operations) > 1 or tx.soroban_data is None:
        return _Code.txMALFORMED
    # CAP-67, protocol 25: a contract call names its destination by a muxed address, or not at all.
    sources = [tx.source, tx.operations[0].source]
    muxed = any(s is not None and s.account_muxed_id is not None for s in sources)
    return _Code.txSOROBAN_INVALID if muxed or not isinstance(tx.memo, NoneMemo) else None


def _time_refusal(tx: Transaction, at: Moment) -> _Code | None:
    times = tx.preconditions.time_bounds if tx.preconditions else None
    ledgers = tx.preconditions.ledger_bounds if tx.preconditions else None
    early = (times and at.closed_at < times.min_time) or (
        ledgers and at.ledger < ledgers.min_ledger
    )
    late = (times and 0 < times.max_time < at.closed_at) or (
        ledgers and 0 < ledgers.max_ledger <= at.ledger
    )
    return _Code.txTOO_EARLY if early else _Code.txTOO_LATE if late else None


def _operations_refusal(tx: Transaction, signatures: "_Signatures") -> xdr.TransactionResult | None:
    if not all(op.source is None or signatures.by(op.source.account_id) for op in tx.operations):
        bad_auth = outer_result(xdr.OperationResultCode.opBAD_AUTH)
        return tx_result(_Code.txFAILED, results=[bad_auth] * len(tx.operations))
    return None if signatures.all_used else tx_result(_Code.txBAD_AUTH_EXTRA)


class _Signatures:
    """The signatures of one transaction; each must have been needed."""

    def __init__(self, tx_hash: bytes, signatures: Sequence[DecoratedSignature]) -> None:
        self._hash = tx_hash
        self._signatures = signatures
        self._unused = set(range(len(signatures)))

    def by(self, account_id: str) -> bool:
        """Whether one of them is by the account's master key."""
        key = Keypair.from_public_key(account_id)
        for index, signature in enumerate(self._signatures):
            if signature.signature_hint != key.signature_hint():
                continue
            try:
                key.verify(self._hash, signature.signature)
            except BadSignatureError:
                continue
            self._unused.discard(index)
            return True
        return False

    @property
    def all_used(self) -> bool:
        """Whether none is superfluous."""
        return not self._unused


def root_keypair(passphrase: str) -> Keypair:
    """The account that holds everything at the beginning, as on a real network."""
    return Keypair.from_raw_ed25519_seed(hashlib.sha256(passphrase.encode()).digest())

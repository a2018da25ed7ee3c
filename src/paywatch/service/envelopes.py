"""A signed transaction as a wallet has it: its hash on our network, and its time bound."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from stellar_sdk import (
    FeeBumpTransactionEnvelope,
    Keypair,
    MuxedAccount,
    Transaction,
    TransactionEnvelope,
)
from stellar_sdk.exceptions import BadSignatureError

from paywatch.errors import InvalidInput

LONGEST: Final = 200_000  # characters of base64; the network takes 132,096 bytes at most
_END_OF_TIME: Final = datetime.max.replace(tzinfo=UTC).timestamp()


@dataclass(frozen=True, slots=True)
class SignedTx:
    """What is announced of an envelope.

    Attributes:
        tx_hash: hex; a fee bump's outer hash.
        until: no ledger that closes later can hold it; None if it has no such bound.
    """

    tx_hash: str
    until: datetime | None


def read_envelope(text: str, passphrase: str) -> SignedTx:
    """Read an envelope, the XDR in base64; what is wrong is said without repeating it.

    Raises:
        InvalidInput: not an envelope, not signed, or signed for another network.
    """
    if len(text) > LONGEST:
        raise InvalidInput("envelope", f"is longer than any transaction: over {LONGEST} characters")
    try:
        return _read(text, passphrase)
    except InvalidInput:
        raise
    except Exception as error:  # any bytes may come here: whatever the parser stumbles over
        problem = "must be a signed transaction: its XDR in base64, as the wallet has it"
        raise InvalidInput("envelope", problem) from error


def _read(text: str, passphrase: str) -> SignedTx:
    if not FeeBumpTransactionEnvelope.is_fee_bump_transaction_envelope(text):
        plain = TransactionEnvelope.from_xdr(text, passphrase)
        _require_signatures(plain, _sources(plain.transaction))
        return SignedTx(plain.hash_hex(), _until(plain.transaction))
    bump = FeeBumpTransactionEnvelope.from_xdr(text, passphrase)
    inner = bump.transaction.inner_transaction_envelope
    _require_signatures(bump, [bump.transaction.fee_source])
    _require_signatures(inner, _sources(inner.transaction))
    return SignedTx(bump.hash_hex(), _until(inner.transaction))


def _sources(tx: Transaction) -> list[MuxedAccount]:
    return [tx.source, *(op.source for op in tx.operations if op.source is not None)]


def _require_signatures(
    envelope: TransactionEnvelope | FeeBumpTransactionEnvelope, sources: Iterable[MuxedAccount]
) -> None:
    """Refuse an envelope that no ledger of this network would take.

    Only signatures by the accounts' own keys are checked: who else may sign for an account is not
    in the envelope.
    """
    if not envelope.signatures:
        raise InvalidInput(
            "envelope", "is not signed: give the transaction after the wallet signed"
        )
    keys = [Keypair.from_public_key(source.account_id) for source in sources]
    by_hint = {key.signature_hint(): key for key in keys}
    for signature in envelope.signatures:
        key = by_hint.get(signature.signature_hint)
        try:
            if key is not None:
                key.verify(envelope.hash(), signature.signature)
        except BadSignatureError:
            raise InvalidInput(
                "envelope",
                f"is not signed for the network {envelope.network_passphrase!r}, "
                "or was changed after it was signed",
            ) from None


def _until(tx: Transaction) -> datetime | None:
    bounds = tx.preconditions.time_bounds if tx.preconditions else None
    if bounds is None or not 0 < bounds.max_time < _END_OF_TIME:  # 0 is none
        return None
    return datetime.fromtimestamp(bounds.max_time, UTC)

"""What only a transaction's XDR says: the memo of old records, and how much a merge moved."""

import struct
from collections.abc import Callable
from typing import Final, TypeVar

from stellar_sdk import xdr

from paywatch.domain.ledger import Memo, MemoType
from paywatch.errors import RecordError
from paywatch.horizon.fields import Fields, read_text

T = TypeVar("T")

# What the SDK's decoder raises on bytes that are not the XDR they claim to be.
_NOT_XDR: Final = (ValueError, EOFError, struct.error, TypeError, KeyError, IndexError)
_MAX_BASE64: Final = 1 << 20  # a transaction has at most 100 operations and 132 kB of contract


def read_memo_xdr(tx: Fields) -> Memo:
    """Read the memo, byte for byte, from the signed envelope."""
    envelope = _decode(tx, "envelope_xdr", xdr.TransactionEnvelope.from_xdr)
    if envelope.v0 is not None:
        memo = envelope.v0.tx.memo
    elif envelope.v1 is not None:
        memo = envelope.v1.tx.memo
    elif envelope.fee_bump is not None and envelope.fee_bump.tx.inner_tx.v1 is not None:
        memo = envelope.fee_bump.tx.inner_tx.v1.tx.memo
    else:
        raise RecordError("envelope_xdr: must be a transaction")
    return _memo(memo)


def _memo(memo: xdr.Memo) -> Memo:
    if memo.text is not None:
        return Memo(MemoType.TEXT, memo.text)
    if memo.id is not None:
        return Memo.of_id(memo.id.uint64)
    if memo.hash is not None:
        return Memo(MemoType.HASH, memo.hash.hash)
    if memo.ret_hash is not None:
        return Memo(MemoType.RETURN, memo.ret_hash.hash)
    return Memo.none()


def read_merged_stroops(tx: Fields, operation_index: int) -> int:
    """Read how many stroops an account_merge moved; the operation's record does not say."""
    result = _decode(tx, "result_xdr", xdr.TransactionResult.from_xdr).result
    results = result.results
    if result.inner_result_pair is not None:  # a fee-bump transaction
        results = result.inner_result_pair.result.result.results
    if not results or not 0 <= operation_index < len(results):
        raise RecordError(f"result_xdr: has no result of operation {operation_index}")
    applied = results[operation_index].tr
    merge = applied.account_merge_result if applied is not None else None
    if merge is None or merge.source_account_balance is None:
        raise RecordError(f"result_xdr: operation {operation_index} is not a merge that succeeded")
    return merge.source_account_balance.int64


def _decode(tx: Fields, name: str, from_xdr: Callable[[str], T]) -> T:
    encoded = read_text(tx, name)
    if len(encoded) > _MAX_BASE64:
        raise RecordError(f"{name}: longer than {_MAX_BASE64} characters")
    try:
        return from_xdr(encoded)
    except _NOT_XDR as error:
        raise RecordError(f"{name}: must be XDR in base64") from error

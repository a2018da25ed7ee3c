"""The memo of a transaction, by its bytes.

Horizon's `memo` of a text drops NULs and mends bad UTF-8, so different memos can look alike there:
`memo_bytes`, or else the signed envelope, is the truth [stellar-horizon,
internal/resourceadapter/transaction.go].
"""

from paywatch.domain.ledger import Memo, MemoType
from paywatch.errors import RecordError
from paywatch.horizon.fields import Fields, read_base64, read_text, read_uint64
from paywatch.horizon.xdr import read_memo_xdr


def read_memo(tx: Fields) -> Memo:
    """Read a transaction's memo.

    Raises:
        RecordError: a field is missing, malformed or contradicts another; it is named.
        InvalidInput: the bytes do not fit the memo's type.
    """
    kind = read_text(tx, "memo_type")
    if kind == MemoType.TEXT:
        return _text(tx)
    if kind == MemoType.NONE:
        if tx.get("memo"):
            raise RecordError("memo: present, but memo_type is none")
        return Memo.none()
    if kind == MemoType.ID:
        return Memo.of_id(read_uint64(tx, "memo"))
    if kind in {MemoType.HASH, MemoType.RETURN}:
        return Memo(MemoType(kind), read_base64(tx, "memo"))
    raise RecordError("memo_type: must be none, text, id, hash or return")


def _text(tx: Fields) -> Memo:
    if "memo_bytes" in tx:
        memo = Memo(MemoType.TEXT, read_base64(tx, "memo_bytes"))
    elif "envelope_xdr" in tx:  # older than memo_bytes, or the empty text
        memo = read_memo_xdr(tx)
    else:
        memo = Memo(MemoType.TEXT, _encode(read_text(tx, "memo")))
    if memo.type is not MemoType.TEXT or not _agrees(memo.value, tx.get("memo", "")):
        raise RecordError("memo: does not agree with memo_bytes or envelope_xdr")
    return memo


def _agrees(value: bytes, shown: object) -> bool:
    """Tell whether Horizon may show these bytes as that text; what it scrubs cannot be compared."""
    try:
        clean = value.decode()
    except UnicodeDecodeError:
        return True
    return "\0" in clean or clean == shown


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise RecordError("memo: must be Unicode text") from error

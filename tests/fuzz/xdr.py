"""Any bytes as the XDR that a transaction's record carries: read, or a problem of the record."""

import base64
from contextlib import suppress

from fuzz.target import Target, real_records
from paywatch.domain.ledger import MAX_STROOPS
from paywatch.errors import InvalidInput, RecordError
from paywatch.horizon.xdr import read_memo_xdr, read_merged_stroops


def run(raw: bytes) -> None:
    """Read it as an envelope and as a result; the first byte says of which operation."""
    index, encoded = raw[0] if raw else 0, base64.b64encode(raw[1:]).decode()
    with suppress(RecordError, InvalidInput):
        str(read_memo_xdr({"envelope_xdr": encoded})).encode()
    with suppress(RecordError):
        stroops = read_merged_stroops({"result_xdr": encoded}, index - 1)
        assert -MAX_STROOPS - 1 <= stroops <= MAX_STROOPS


def _seeds() -> tuple[bytes, ...]:
    fields = ("envelope_xdr", "result_xdr")
    real = [tx[name] for tx in real_records("tx-*.json") for name in fields if tx.get(name)]
    return tuple(b"\x01" + base64.b64decode(text) for text in real)


TARGET = Target(run, _seeds())

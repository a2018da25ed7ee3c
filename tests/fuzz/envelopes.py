"""Any bytes as the transaction that a payer announces: its hash and its bound, or a refusal."""

import base64
import re

from fuzz.target import Target, real_records
from paywatch.errors import InvalidInput
from paywatch.service.envelopes import read_envelope

_PASSPHRASE = "Public Global Stellar Network ; September 2015"


def run(raw: bytes) -> None:
    """Read it as text, and as the XDR behind the text."""
    for text in (raw.decode(errors="surrogateescape"), base64.b64encode(raw).decode()):
        try:
            signed = read_envelope(text, _PASSPHRASE)
        except InvalidInput as error:
            str(error).encode()
            assert len(str(error)) < 300
            continue
        assert re.fullmatch(r"[0-9a-f]{64}", signed.tx_hash)
        assert signed.until is None or signed.until.tzinfo is not None


def _seeds() -> tuple[bytes, ...]:
    real = [tx["envelope_xdr"] for tx in real_records("tx-*.json") if tx.get("envelope_xdr")]
    return (*(base64.b64decode(text) for text in real), *(text.encode() for text in real[:3]))


TARGET = Target(run, _seeds())

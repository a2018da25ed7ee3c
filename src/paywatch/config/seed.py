"""Finding a Stellar secret seed (`S…`) where none may be.

paywatch can see money and never move it; a seed in its settings is a mistake that must be loud.
"""

import base64
import binascii
import re

# Overlapping candidates too: the look-ahead consumes nothing.
_CANDIDATE = re.compile(r"(?=(S[A-Z2-7]{55}))")
_VERSION = 18 << 3  # SEP-23: the version byte of an Ed25519 secret seed


def holds_seed(text: str) -> bool:
    """Whether a secret seed with a valid checksum (SEP-23) stands anywhere in the text."""
    return any(_is_seed(match[1]) for match in _CANDIDATE.finditer(text.upper()))


def _is_seed(candidate: str) -> bool:
    raw = base64.b32decode(candidate)
    checksum = binascii.crc_hqx(raw[:-2], 0).to_bytes(2, "little")
    return raw[0] == _VERSION and raw[-2:] == checksum

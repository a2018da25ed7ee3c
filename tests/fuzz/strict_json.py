"""Any bytes as JSON: what is taken is what the standard parser reads, and never more."""

import json
from typing import Any

from fuzz.target import Target, dumped, real_records
from paywatch.errors import HorizonUnavailable
from paywatch.horizon.strict_json import MAX_DEPTH, parse_json

_CAP = 1 << 20


def run(raw: bytes) -> None:
    """Parse it, and hold it against the standard parser."""
    try:
        document = parse_json(raw, _CAP)
    except HorizonUnavailable as error:
        assert error.reason in {"malformed", "too_large"}
        str(error).encode()
        return
    assert json.loads(raw) == document
    assert _depth(document) <= MAX_DEPTH
    again = json.dumps(document, allow_nan=False).encode()  # there is no NaN in it
    assert parse_json(again, 8 * len(raw) + 64) == document


def _depth(document: Any) -> int:
    inner = document.values() if isinstance(document, dict) else document
    if not isinstance(document, dict | list):
        return 0
    return 1 + max(map(_depth, inner), default=0)


_ODD = (
    b'{"a":1,"a":2}', b"[NaN]", b"[1e999]", b"[-0.0,1E-400]", b'"\\ud800"', b'{"\\u0000":null}',
    b"[" * 40 + b"]" * 40, b"9" * 5000, b'\xef\xbb\xbf{"a":1}', b' [true,false]\r\n',
)  # fmt: skip
TARGET = Target(run, (*map(dumped, list(real_records())[:8]), *_ODD), is_json=True)

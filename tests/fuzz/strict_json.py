"""Any bytes as JSON: taken is what a slow and strict reader takes, and nothing else."""

import json
import math
from typing import Any

from fuzz.target import Target, dumped, real_records
from paywatch.errors import HorizonUnavailable
from paywatch.horizon.strict_json import MAX_DEPTH, parse_json

_CAP = 1 << 20


def run(raw: bytes) -> None:
    """Parse it, and hold it against the slow reader."""
    try:
        expected = _read_slowly(raw)
        is_strict = _depth(expected) <= MAX_DEPTH
    except (ValueError, RecursionError):
        is_strict = False
    try:
        document = parse_json(raw, _CAP)
    except HorizonUnavailable as error:
        assert error.reason in {"malformed", "too_large"}
        str(error).encode()
        assert not is_strict, "good JSON is refused"
        return
    assert is_strict, "bad JSON is taken"
    assert document == expected
    again = json.dumps(document, allow_nan=False).encode()  # there is no NaN in it
    assert parse_json(again, 8 * len(raw) + 64) == document


def _read_slowly(raw: bytes) -> Any:
    """Have the standard parser show every pair and every number on its way."""

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) < len(pairs):
            raise ValueError("a name occurs twice")
        return dict(pairs)

    def number(text: str) -> float:
        if math.isinf(float(text)) or math.isnan(float(text)):
            raise ValueError("not a number")
        return float(text)

    return json.loads(
        raw.decode(), object_pairs_hook=members, parse_float=number, parse_constant=number
    )


def _depth(document: Any) -> int:
    inner = document.values() if isinstance(document, dict) else document
    if not isinstance(document, dict | list):
        return 0
    return 1 + max(map(_depth, inner), default=0)


_ODD = (
    b'{"a":1,"a":2}',
    b'{"a\\"":{"b":[],"\\u0062":"\\\\"}}',
    b'{"a":"\\"","a":1}',
    b"[NaN]",
    b"[1e999]",
    b"[-0.0,1E-400]",
    b'"\\ud800"',
    b'{"\\u0000":null}',
    b"[" * 40 + b"]" * 40,
    b"9" * 5000,
    b'\xef\xbb\xbf{"a":1}',
    b" [true,false]\r\n",
)
TARGET = Target(run, (*map(dumped, list(real_records())[:8]), *_ODD), is_json=True)

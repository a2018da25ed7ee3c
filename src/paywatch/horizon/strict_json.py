"""JSON as Horizon writes it, and nothing that the standard parser would let through beside it.

The parser in C does the work. What it takes too kindly is refused: NaN and Infinity, numbers that
overflow to infinity, names that occur twice in one object, and nesting deep enough to break
whatever walks or writes the document later.
"""

import json
import math
from typing import Any, Final, NoReturn

from paywatch.errors import HorizonUnavailable

MAX_DEPTH: Final = 32  # a page of joined operations is 7 deep


def parse_json(raw: bytes, max_bytes: int) -> Any:
    """Read one JSON document.

    Raises:
        HorizonUnavailable: `too_large` above `max_bytes`, else `malformed`.
    """
    if len(raw) > max_bytes:
        raise HorizonUnavailable("too_large", f"a document of {len(raw)} bytes, cap {max_bytes}")
    try:
        text = raw.decode()
        document = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise HorizonUnavailable("malformed", f"not JSON: {error}") from error
    # Fewer brackets than MAX_DEPTH cannot nest deeper: a single record never needs the walk.
    if text.count("{") + text.count("[") > MAX_DEPTH and _is_too_deep(document):
        raise HorizonUnavailable("malformed", f"JSON nested more than {MAX_DEPTH} deep")
    return document


def parse_object(raw: bytes, max_bytes: int) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        HorizonUnavailable: as `parse_json`; `malformed` also for anything but an object.
    """
    document = parse_json(raw, max_bytes)
    if not isinstance(document, dict):
        raise HorizonUnavailable("malformed", "JSON, but not an object")
    return document


def _is_too_deep(document: Any) -> bool:
    level = [document] if isinstance(document, dict | list) else []
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list  # isinstance takes four times as long
        ]
        if not level:
            return False
    return True


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name occurs twice in one object")
    return members


def _finite(literal: str) -> float:
    number = float(literal)
    if not math.isfinite(number):
        raise ValueError(f"the number {literal[:20]} is out of range")
    return number


def _refuse(literal: str) -> NoReturn:
    raise ValueError(f"{literal} is not JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_constant=_refuse
)

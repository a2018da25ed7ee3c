"""JSON as Horizon writes it, and nothing that the standard parser would let through beside it.

The parser in C does the work. What it takes too kindly is refused: NaN and Infinity, numbers that
overflow to infinity, names that occur twice in one object, and nesting deep enough to break
whatever walks or writes the document later.
"""

import json
import math
from collections.abc import Iterable
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
        strings = _count_strings(document)
        # Whoever comes second takes the place of the first, whose two quotation marks are left
        # over. An escaped one is left over, too: only such a document is read the slow way.
        if 2 * strings != text.count('"'):
            _UNIQUE_DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise HorizonUnavailable("malformed", f"not JSON: {error}") from error
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


def _count_strings(document: Any) -> int:
    """Count the names and strings of a document that is not too deep.

    By levels, and with `type`: isinstance takes four times as long.
    """
    strings = 0
    level: list[Any] = [[document]]
    for _ in range(MAX_DEPTH + 1):
        inner: list[Any] = []
        for outer in level:
            if type(outer) is dict:
                strings += len(outer)
                values: Iterable[Any] = outer.values()
            else:
                values = outer
            for value in values:
                if type(value) is str:
                    strings += 1
                elif type(value) is dict or type(value) is list:
                    inner.append(value)
        if not inner:
            return strings
        level = inner
    raise ValueError(f"nested more than {MAX_DEPTH} deep")


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


_DECODER: Final = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse)
# Its hook is called for each object, and takes as long as all the parsing.
_UNIQUE_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_constant=_refuse
)

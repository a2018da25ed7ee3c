"""Many rows as one parameter: a JSON array that `json_to_recordset` unfolds.

One statement per table and batch, of constant text, whatever the number of rows: the statement is
prepared once, and 200 settlements are not 200 round trips.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Final

_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))


def as_json(rows: Iterable[Mapping[str, object]]) -> str:
    """Write rows of JSON-ready values (see `hexed` for bytes; times and ids as strings)."""
    return _ENCODER.encode(list(rows))


def hexed(value: bytes) -> str:
    r"""Write bytes as BYTEA reads them: `\x` and hexadecimal digits."""
    return "\\x" + value.hex()

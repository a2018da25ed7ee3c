"""Many rows as one parameter: a JSON array that `json_to_recordset` unfolds.

One statement per table and batch, of constant text, whatever the number of rows: the statement is
prepared once, and 200 settlements are not 200 round trips.
"""

import json
from collections.abc import Iterable, Mapping

import orjson


def as_json(rows: Iterable[Mapping[str, object]]) -> str:
    """Write rows of what JSON knows, of UUIDs and of aware times; see `hexed` for bytes."""
    rows = list(rows)
    try:
        return orjson.dumps(rows).decode()
    except orjson.JSONEncodeError:
        # A number above 64 bits, or half a pair of surrogates. PostgreSQL is to refuse it, who
        # says it by an error that settling knows: then the record that has it is put aside.
        return json.dumps(rows, default=str)


def hexed(value: bytes) -> str:
    r"""Write bytes as BYTEA reads them: `\x` and hexadecimal digits."""
    return "\\x" + value.hex()

"""JSON that the standard parser takes and we do not."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paywatch.errors import HorizonUnavailable
from paywatch.horizon.strict_json import MAX_DEPTH, parse_json, parse_object

CAP = 1 << 20


def reason(raw: bytes, max_bytes: int = CAP) -> str:
    with pytest.raises(HorizonUnavailable) as caught:
        parse_object(raw, max_bytes)
    return caught.value.reason


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b'{"a": 1',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": 1, "a": 2}',
        b'{"o": {"a": 1, "a": 1}}',
        b'[{"a": 1, "a": {"b": "c"}}]',
        b'{"a": "x", "a" : "x"}',
        b'{"a": 1, "\\u0061": 2}',
        rb'{"a": "\"", "a": 1}',
        rb'{"a": "\u0022", "a": "\""}',
        b'{"a": 1} {"b": 2}',
        b'{"a": "\xff"}',
        b'{"a": ' + b"9" * 5000 + b"}",
        '{"a": 1}'.encode("utf-16"),
        b"[1]",
        b'"text"',
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
    ids=lambda raw: repr(raw[:24]),
)
def test_what_is_not_strict_json_is_malformed(raw: bytes) -> None:
    assert reason(raw) == "malformed"


def test_nesting_is_capped() -> None:
    def nested(depth: int) -> bytes:
        return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)

    assert parse_object(nested(MAX_DEPTH), CAP)
    assert reason(nested(MAX_DEPTH + 1)) == "malformed"
    assert reason(b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}") == "malformed"


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=30,
    ),
    st.booleans(),
)
def test_what_is_strict_is_read_as_it_was_written(document: Any, only_ascii: bool) -> None:
    written = json.dumps({"document": document}, ensure_ascii=only_ascii).encode()
    assert parse_object(written, CAP) == {"document": document}


@given(st.dictionaries(st.text(), st.text() | st.lists(st.text()), min_size=1), st.data())
def test_a_name_that_occurs_twice_is_found_wherever_it_is(
    members: dict[str, Any], data: st.DataObject
) -> None:
    pairs = [*members.items(), (data.draw(st.sampled_from(sorted(members))), "again")]
    written = ", ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in pairs)
    assert reason(f'{{"outer": [{{{written}}}]}}'.encode()) == "malformed"


def test_width_is_not_depth() -> None:
    assert len(parse_json(b"[" + b"{}," * 999 + b"{}]", CAP)) == 1000


def test_size_is_capped() -> None:
    assert reason(b'{"a": "0123456789"}', max_bytes=10) == "too_large"

"""Amounts, assets, memos and positions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stellar_sdk.sep.toid import TOID

from paywatch.domain.ledger import (
    MAX_STROOPS,
    Asset,
    Memo,
    MemoType,
    Position,
    format_stroops,
    parse_stroops,
)
from paywatch.errors import InvalidInput
from support import address


@pytest.mark.parametrize(
    ("text", "stroops"),
    [
        ("0", 0),
        ("12.5", 125_000_000),
        ("0.0000001", 1),
        ("922337203685.4775807", MAX_STROOPS),
        ("17014118346046923173168730371588.4105727", 2**127 - 1),
    ],
)
def test_amounts_are_read_as_whole_stroops(text: str, stroops: int) -> None:
    assert parse_stroops(text) == stroops


@pytest.mark.parametrize(
    "text",
    ["", ".5", "5.", "-1", "+1", "1e3", "1_000", "1,5", " 1", "1 ", "1\n", "NaN", "Infinity", "0x1",
     "\uff11.\uff15", "\u0661", "1.00000001", "9" * 40],
)  # fmt: skip
def test_what_decimal_would_take_is_no_amount(text: str) -> None:
    with pytest.raises(InvalidInput, match="amount"):
        parse_stroops(text)


@given(st.integers(min_value=0, max_value=2**127))
def test_an_amount_survives_writing_and_reading(stroops: int) -> None:
    assert parse_stroops(format_stroops(stroops)) == stroops


def test_an_asset_is_its_code_and_its_issuer() -> None:
    issuer = address("issuer")
    assert Asset.parse("native") == Asset.native()
    assert Asset.parse("native").is_native
    assert str(Asset.parse(f"USDC:{issuer}")) == f"USDC:{issuer}"
    assert Asset("XLM", issuer) != Asset.native()
    assert Asset("USDC", issuer) != Asset("USDC", address("spoofer"))
    assert Asset("usdc", issuer) != Asset("USDC", issuer)


@pytest.mark.parametrize(
    "text", ["", "XLM", "USDC", "USDC:", "USDC:GABC", ":G", "TOOLONGASSETCODE:" + "G" * 56, "U D:G"]
)
def test_half_an_asset_is_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"asset: .*CODE:ISSUER"):
        Asset.parse(text)


@pytest.mark.parametrize(
    ("memo_type", "value", "canonical"),
    [
        ("id", "1", bytes(7) + b"\x01"),
        ("id", "18446744073709551615", b"\xff" * 8),
        ("id", "007", bytes(7) + b"\x07"),
        ("text", "Ünï", "Ünï".encode()),
        ("text", " 1 ", b" 1 "),
        ("hash", "AB" * 32, b"\xab" * 32),
    ],
)
def test_memos_become_canonical_bytes(memo_type: str, value: str, canonical: bytes) -> None:
    memo = Memo.parse(memo_type, value)
    assert (memo.type, memo.value) == (memo_type, canonical)
    assert Memo.parse(memo_type, str(memo)) == memo


@pytest.mark.parametrize(
    ("memo_type", "value"),
    [
        ("id", "18446744073709551616"),
        ("id", "-1"),
        ("id", "1.0"),
        ("id", "\uff11"),
        ("text", ""),
        ("text", "x" * 29),
        ("text", "ü" * 15),
        ("text", "caf\udce9"),  # a command line in another encoding
        ("hash", "ab" * 31),
        ("hash", "zz" * 32),
        ("return", "ab" * 32),
        ("none", ""),
        ("memo", "1"),
    ],
)
def test_a_memo_that_a_transaction_cannot_carry_is_refused(memo_type: str, value: str) -> None:
    with pytest.raises(InvalidInput, match="memo"):
        Memo.parse(memo_type, value)


@pytest.mark.parametrize(
    ("memo_type", "length"), [("none", 1), ("text", 29), ("id", 7), ("hash", 31), ("return", 33)]
)
def test_bytes_that_do_not_fit_their_type_are_no_memo(memo_type: str, length: int) -> None:
    with pytest.raises(InvalidInput):
        Memo(MemoType(memo_type), bytes(length))


def test_hostile_text_can_be_shown() -> None:
    assert str(Memo(MemoType.TEXT, b"\xff\x00ok")) == "\\xff\x00ok"


@given(
    st.integers(min_value=0, max_value=2**31 - 1),
    st.integers(min_value=0, max_value=2**20 - 1),
    st.integers(min_value=0, max_value=2**12 - 1),
)
def test_positions_are_those_of_sep_35(ledger: int, tx: int, operation: int) -> None:
    position = Position.of(ledger, tx, operation)
    assert position == TOID(ledger, tx, operation).to_int64()
    assert position.ledger == ledger
    assert position.operation_index == operation - 1


def test_after_a_ledger_means_before_the_next() -> None:
    assert Position.of(7, 2**20 - 1, 4095) == Position.after_ledger(7) < Position.of(8)

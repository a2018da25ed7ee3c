"""Any text as each field: a value that is written back the same, or an error of ours."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fuzz.target import Target, real_records
from paywatch.domain.ledger import (
    MAX_STROOPS,
    MAX_UINT64,
    Asset,
    Memo,
    MemoType,
    Position,
    format_stroops,
    parse_stroops,
)
from paywatch.errors import InvalidInput, RecordError
from paywatch.horizon import fields
from paywatch.horizon.memos import read_memo

_REFUSALS: Final = (InvalidInput, RecordError)


def run(raw: bytes) -> None:
    """Read the text as each field, alone and beside another."""
    text = raw.decode(errors="surrogateescape")
    for check in (_stroops, _asset, _memos, _position, _fields):
        try:
            check(text)
        except _REFUSALS as error:
            str(error).encode()


def _stroops(text: str) -> None:
    stroops = parse_stroops(text)
    assert text.isascii()
    assert 0 <= stroops < 10**46
    assert parse_stroops(format_stroops(stroops)) == stroops
    whole, _, places = text.partition(".")
    assert stroops == int(whole + places) * 10 ** (7 - len(places))


def _asset(text: str) -> None:
    asset = Asset.parse(text)
    assert str(asset) == text
    assert Asset.parse(str(asset)) == asset


def _memos(text: str) -> None:
    for kind in MemoType:
        with suppress(*_REFUSALS):
            memo = Memo.parse(kind, text)
            assert Memo.parse(kind, str(memo)) == memo
            as_id = memo.text_as_id
            assert as_id is None or str(as_id) == str(memo)
        for tx in (
            {"memo_type": kind, "memo": text},
            {"memo_type": kind, "memo": text, "memo_bytes": text},
            {"memo_type": kind, "memo_bytes": text},
        ):
            with suppress(*_REFUSALS):
                str(read_memo(tx)).encode()


def _position(text: str) -> None:
    position = fields.read_position({"paging_token": text})
    assert int(text) == position < 2**63
    operation = max(position.operation_index + 1, 0)
    assert Position.of(position.ledger, position >> 12 & 0xFFFFF, operation) == position


def _fields(text: str) -> None:
    one = {"x": text, "asset_type": text, "asset_code": text, "asset_issuer": text}
    readers: tuple[Callable[[Any, str], Any], ...] = (
        fields.read_text,
        fields.read_address,
        fields.read_hash,
        fields.read_base64,
    )
    for read in readers:
        with suppress(RecordError):
            read(one, "x")
    with suppress(RecordError):
        _check_time(text, fields.read_time(one, "x"))
    with suppress(RecordError):
        assert 0 <= fields.read_uint64(one, "x") <= MAX_UINT64
    with suppress(RecordError):
        assert 0 <= fields.read_stroops(one, "x") <= MAX_STROOPS
    for kind in ("native", "credit_alphanum4", text):
        with suppress(RecordError):
            fields.read_asset({**one, "asset_type": kind})
    account, _, muxed = text.partition(" ")
    with suppress(RecordError):
        number = fields.read_muxed_id({"to": account, "to_muxed": muxed}, "to")
        assert number is not None
        assert 0 <= number <= MAX_UINT64


def _check_time(text: str, moment: datetime) -> None:
    """Read it once more, in pieces: the clock's nineteen characters, and the zone's last six."""
    clock = datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    zone = "+00:00" if text.endswith("Z") else text[-6:]
    away = timedelta(hours=int(zone[1:3]), minutes=int(zone[4:]))
    assert moment.utcoffset() == timedelta(0)
    utc = clock + away if zone[0] == "-" else clock - away
    assert moment.replace(microsecond=0) == utc


def _seeds() -> tuple[bytes, ...]:
    texts = {
        value
        for record in real_records()
        for part in (record, record.get("transaction", {}))
        for value in part.values()
        if isinstance(value, str) and len(value) < 100
    }
    muxed = "MAAAAAAAAAAAAAB7BQ2L7E5NBWMXDUCMZSIPOBKRDSBYVLMXGSSKF6YNPIB7Y77ITLVL6"
    account = "GA7QYNF7SOWQ3GLR2BGMZEHXAVIRZA4KVWLTJJFC7MGXUA74P7UJVSGZ"
    odd = ("1" * 39 + ".0000001", "-1", "\uff11", "1e3", "2026-11-21T24:00:00+99:99",
           "2026-11-21T12:00:00", "20261121T12-07", "0001-01-01",
           f"{account} {muxed}", "", "18446744073709551616", "00", f"USDC:{account}")  # fmt: skip
    return tuple(text.encode() for text in (*sorted(texts), *odd))


TARGET = Target(run, _seeds())

"""Reading the fields of a record whose shape is not ours: the value, or an error that names it."""

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from stellar_sdk import MuxedAccount

from paywatch.domain.ledger import MAX_STROOPS, MAX_UINT64, Asset, Position, parse_stroops
from paywatch.errors import InvalidInput, RecordError

Fields = Mapping[str, Any]

# Whoever can hold a balance: account, contract, claimable balance, liquidity pool (SEP-23).
_ADDRESS: Final = re.compile(r"[GCL][A-Z2-7]{55}|B[A-Z2-7]{57}", re.ASCII)
_MUXED: Final = re.compile(r"M[A-Z2-7]{68}", re.ASCII)
_HASH: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_DIGITS: Final = re.compile(r"[0-9]{1,20}", re.ASCII)
# RFC 3339, as Go writes it. `fromisoformat` takes weeks, days without a time and odd zones, too.
_TIME: Final = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)", re.ASCII
)
_MAX_POSITION: Final = 2**63 - 1


def read_object(fields: Fields, name: str, remedy: str = "must be an object") -> Fields:
    """Read an embedded object."""
    value = fields.get(name)
    if not isinstance(value, Mapping):
        raise RecordError(f"{name}: {remedy}")
    return value


def read_text(fields: Fields, name: str) -> str:
    """Read a string, possibly empty."""
    value = fields.get(name)
    if not isinstance(value, str):
        raise RecordError(f"{name}: must be a string")
    return value


def read_address(fields: Fields, name: str) -> str:
    """Read who pays or is paid: never an M… address, for that has a field of its own."""
    value = read_text(fields, name)
    if not _ADDRESS.fullmatch(value):
        raise RecordError(f"{name}: must be an address (G… or C…)")
    return value


def read_hash(fields: Fields, name: str) -> str:
    """Read a transaction's hash: 64 hex digits in lower case."""
    value = read_text(fields, name)
    if not _HASH.fullmatch(value):
        raise RecordError(f"{name}: must be 64 hexadecimal digits")
    return value


def read_uint64(fields: Fields, name: str) -> int:
    """Read an unsigned 64-bit number; Horizon writes these as strings."""
    value = read_text(fields, name)
    if not _DIGITS.fullmatch(value) or int(value) > MAX_UINT64:
        raise RecordError(f"{name}: must be a decimal number of 64 bits")
    return int(value)


def read_stroops(fields: Fields, name: str) -> int:
    """Read an amount in stroops; a contract's may exceed 64 bits, and is refused then."""
    try:
        stroops = parse_stroops(read_text(fields, name), name)
    except InvalidInput as error:
        raise RecordError(str(error)) from error
    if stroops > MAX_STROOPS:
        raise RecordError(f"{name}: exceeds the 64 bits of a classic balance")
    return stroops


def read_asset(fields: Fields) -> Asset:
    """Read `asset_type`, `asset_code` and `asset_issuer`."""
    kind = read_text(fields, "asset_type")
    if kind == "native":
        return Asset.native()
    if kind not in {"credit_alphanum4", "credit_alphanum12"}:
        raise RecordError("asset_type: must be native, credit_alphanum4 or credit_alphanum12")
    code, issuer = read_text(fields, "asset_code"), read_text(fields, "asset_issuer")
    try:
        return Asset.parse(f"{code}:{issuer}", "asset_code, asset_issuer")
    except InvalidInput as error:
        raise RecordError(str(error)) from error


def read_time(fields: Fields, name: str) -> datetime:
    """Read an RFC 3339 time as aware UTC."""
    try:
        return _parse_time(read_text(fields, name))
    except (ValueError, OverflowError) as error:
        raise RecordError(f"{name}: must be an RFC 3339 time with a zone") from error


@lru_cache(maxsize=1024)  # all of a ledger closes at one time
def _parse_time(text: str) -> datetime:
    if not _TIME.fullmatch(text):
        raise ValueError(text)
    return datetime.fromisoformat(text).astimezone(UTC)


def read_base64(fields: Fields, name: str) -> bytes:
    """Read bytes in base64."""
    try:
        return base64.b64decode(read_text(fields, name), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RecordError(f"{name}: must be base64") from error


def read_muxed_id(fields: Fields, receiver: str) -> int | None:
    """Read the id within the M… address that was paid, if one was.

    Horizon drops `<receiver>_muxed_id` when it is 0, but keeps `<receiver>_muxed`.
    """
    number = f"{receiver}_muxed_id"
    claimed = read_uint64(fields, number) if number in fields else None
    if f"{receiver}_muxed" not in fields:
        return claimed
    address = read_text(fields, f"{receiver}_muxed")
    try:
        muxed = MuxedAccount.from_account(address) if _MUXED.fullmatch(address) else None
    except ValueError:
        muxed = None
    if muxed is None or muxed.account_id != fields.get(receiver):
        raise RecordError(f"{receiver}_muxed: must be an M… address of {receiver}")
    if claimed is not None and claimed != muxed.account_muxed_id:
        raise RecordError(f"{number}: is not the id in {receiver}_muxed")
    return muxed.account_muxed_id


def read_position(record: object) -> Position:
    """Read where a record stands in the ledger order.

    Raises:
        RecordError: it cannot be placed; nothing after it may be read either.
    """
    if not isinstance(record, Mapping):
        raise RecordError("a record must be an object")
    token = record.get("paging_token", record.get("id"))
    if not isinstance(token, str) or not _DIGITS.fullmatch(token) or int(token) > _MAX_POSITION:
        raise RecordError("paging_token: must be a decimal number of 63 bits")
    if record.get("id", token) != token:
        raise RecordError("paging_token: is not the record's id")
    return Position(token)

"""Values as people type them on a command line."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from stellar_sdk import StrKey

from paywatch.errors import InvalidInput

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"([0-9]{1,9})([smhd])", re.ASCII)
_PERCENT = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,2}))?%?", re.ASCII)
_CREDIT = re.compile(r"([0-9]{1,19})(?::([0-9]{1,5}))?", re.ASCII)
_TX_HASH = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_LEDGER = re.compile(r"[0-9]{1,10}", re.ASCII)
_LAST_LEDGER: Final = 2**31 - 1  # above it a position would not fit its 63 bits
_LAST_OPERATION: Final = 2**63 - 1
_LAST_CHANGE: Final = 2**15 - 1


@dataclass(frozen=True, slots=True)
class LedgerOrTime:
    """A place in the past: a ledger's number, or a moment of its clock."""

    ledger: int | None
    at: datetime | None


def parse_account(text: str) -> str:
    """Take an account's address; one that is no address is not repeated: it may be a seed.

    Raises:
        InvalidInput: not a G… address with a valid checksum.
    """
    if StrKey.is_valid_ed25519_secret_seed(text):
        raise InvalidInput("account", "is a secret seed: give the public G… address only")
    if not StrKey.is_valid_ed25519_public_key(text):
        raise InvalidInput("account", "must be a Stellar G… address")
    return text


def parse_duration(text: str, field: str = "expires_in") -> timedelta:
    """Read `90s`, `30m`, `2h` or `1d`.

    Raises:
        InvalidInput: anything else.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise InvalidInput(field, "must be a number and its unit, such as 90s, 30m, 2h or 1d")
    number, unit = match.groups()
    try:
        return timedelta(**{_UNITS[unit]: int(number)})
    except OverflowError as error:
        raise InvalidInput(field, "is longer than time itself; give a shorter one") from error


def parse_percent(text: str, field: str) -> int:
    """Read a percentage with at most 2 decimals as basis points: `0.5` is 50.

    Raises:
        InvalidInput: anything else.
    """
    match = _PERCENT.fullmatch(text)
    if match is None:
        raise InvalidInput(field, "must be a percentage with at most 2 decimals, such as 0.5")
    whole, hundredths = match.groups()
    return int(whole) * 100 + int((hundredths or "").ljust(2, "0"))


def parse_id(text: str, field: str) -> UUID:
    """Read an id as paywatch prints it.

    Raises:
        InvalidInput: not a UUID.
    """
    try:
        return UUID(text)
    except ValueError as error:
        raise InvalidInput(field, "must be an id as `paywatch` printed it (a UUID)") from error


def parse_credit(text: str) -> tuple[int, int]:
    """Read a credit as paywatch prints it: an operation's id, and after a colon which change of it.

    Without the colon it is the first, 0; only a contract call has others.

    Raises:
        InvalidInput: anything else.
    """
    match = _CREDIT.fullmatch(text)
    key = (int(match[1]), int(match[2] or 0)) if match else None
    if key is None or key[0] > _LAST_OPERATION or key[1] > _LAST_CHANGE:
        raise InvalidInput("credit", "must be OPERATION or OPERATION:i, such as 5172433409568769:0")
    return key


def parse_tx_hash(text: str) -> str:
    """Read a transaction's hash.

    Raises:
        InvalidInput: not 64 hexadecimal digits.
    """
    if not _TX_HASH.fullmatch(text):
        raise InvalidInput("tx", "must be a transaction's hash: 64 hexadecimal digits")
    return text.lower()


def parse_ledger_or_time(text: str, field: str) -> LedgerOrTime:
    """Read a ledger's number, or a time in ISO 8601 (UTC if it names no zone).

    Raises:
        InvalidInput: neither.
    """
    if _LEDGER.fullmatch(text) and 1 <= int(text) <= _LAST_LEDGER:
        return LedgerOrTime(int(text), None)
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput(
            field, "must be a ledger's number or a time such as 2026-08-01T12:00:00Z"
        ) from error
    return LedgerOrTime(None, at if at.tzinfo else at.replace(tzinfo=UTC))

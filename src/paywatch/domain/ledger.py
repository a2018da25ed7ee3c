"""The ledger as paywatch sees it: amounts, assets, memos, positions and credits.

Amounts are integers in stroops (10⁻⁷ units). Times are aware and UTC; `closed_at` is always the
ledger's clock, never the wall's.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, Self

from paywatch.errors import InvalidInput

STROOPS_PER_UNIT: Final = 10_000_000
MAX_STROOPS: Final = 2**63 - 1  # a classic balance is a signed 64-bit integer
MAX_UINT64: Final = 2**64 - 1

# Decimal() would also take full-width digits, `1_000`, `NaN` and `1e3`: only ASCII is an amount.
_AMOUNT = re.compile(r"([0-9]{1,39})(?:\.([0-9]{1,7}))?", re.ASCII)
_ACCOUNT = re.compile(r"G[A-Z2-7]{55}", re.ASCII)
_ID_DIGITS = re.compile(rb"0|[1-9][0-9]{0,19}")
_ASSET_CODE = re.compile(r"[A-Za-z0-9]{1,12}", re.ASCII)


def parse_stroops(text: str, field: str = "amount") -> int:
    """Read a decimal string with at most 7 places as stroops.

    The result may exceed 64 bits: a contract's amounts are 128 bits wide.

    Raises:
        InvalidInput: the string is anything but ASCII digits with at most one point.
    """
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise InvalidInput(field, "must be a decimal number with at most 7 places, such as 12.5")
    units, places = match.groups()
    return int(units) * STROOPS_PER_UNIT + int((places or "").ljust(7, "0"))


def format_stroops(stroops: int) -> str:
    """Write stroops as Horizon does: a decimal string with 7 places."""
    units, places = divmod(stroops, STROOPS_PER_UNIT)
    return f"{units}.{places:07d}"


@dataclass(frozen=True, slots=True)
class Asset:
    """The native asset, or a code together with its issuer.

    `XLM` as a code, or a known code of another issuer, is another asset: that is the commonest
    spoof, and equality of both fields is the whole defence.
    """

    code: str
    issuer: str | None = None

    @classmethod
    def native(cls) -> Self:
        """The network's own asset (lumens)."""
        return cls("native")

    @classmethod
    def parse(cls, text: str, field: str = "asset") -> Self:
        """Read `native` or `CODE:ISSUER`.

        Raises:
            InvalidInput: neither of the two forms.
        """
        try:
            return cls(*_split_asset(text))
        except ValueError as error:
            raise InvalidInput(field, str(error)) from error

    @property
    def is_native(self) -> bool:
        """Whether this is the network's own asset."""
        return self.issuer is None

    def __str__(self) -> str:
        """Give the canonical form, as Horizon's `asset` parameter and SEP-11 have it."""
        return "native" if self.issuer is None else f"{self.code}:{self.issuer}"


@lru_cache(maxsize=1024)  # a shop has few, and each of its sessions and credits names one
def _split_asset(text: str) -> tuple[str, str | None]:
    if text == "native":
        return "native", None
    code, _, issuer = text.partition(":")
    if not _ASSET_CODE.fullmatch(code) or not _ACCOUNT.fullmatch(issuer):
        raise ValueError("must be `native` or CODE:ISSUER with a G… issuer")
    return code, issuer


class MemoType(StrEnum):
    """The five memo types of a Stellar transaction, by Horizon's names."""

    NONE = "none"
    TEXT = "text"
    ID = "id"
    HASH = "hash"
    RETURN = "return"


_MEMO_LENGTHS: Final = {
    MemoType.NONE: range(1),
    MemoType.TEXT: range(29),
    MemoType.ID: range(8, 9),
    MemoType.HASH: range(32, 33),
    MemoType.RETURN: range(32, 33),
}


@dataclass(frozen=True, slots=True)
class Memo:
    """A memo as canonical bytes; two memos are the same if type and bytes are.

    Text is its raw bytes (up to 28, any bytes), an id 8 bytes big-endian, hash and return 32.
    """

    type: MemoType
    value: bytes = b""

    def __post_init__(self) -> None:
        """Refuse bytes that the type cannot carry.

        Raises:
            InvalidInput: the length does not fit the type.
        """
        length = len(self.value)
        if length not in _MEMO_LENGTHS[self.type]:
            raise InvalidInput("memo", f"{length} bytes do not fit a memo of type {self.type}")

    @classmethod
    def none(cls) -> Self:
        """No memo."""
        return cls(MemoType.NONE)

    @classmethod
    def of_id(cls, number: int) -> Self:
        """An id memo from its unsigned 64-bit number.

        Raises:
            InvalidInput: out of range.
        """
        if not 0 <= number <= MAX_UINT64:
            raise InvalidInput("memo", "an id memo must be between 0 and 18446744073709551615")
        return cls(MemoType.ID, number.to_bytes(8, "big"))

    @classmethod
    def parse(cls, memo_type: str, text: str) -> Self:
        """Read a memo as a merchant writes it: text, a decimal id, or 64 hex digits of a hash.

        Raises:
            InvalidInput: the type is none of id, text and hash, or the value does not fit it.
        """
        if memo_type == MemoType.ID:
            if not re.fullmatch(r"[0-9]{1,20}", text, re.ASCII):
                raise InvalidInput("memo", "an id memo must be a decimal number")
            return cls.of_id(int(text))
        if memo_type == MemoType.TEXT:
            value = text.encode(errors="replace")
            if not 1 <= len(value) <= 28 or value.decode() != text:  # half of a surrogate pair
                raise InvalidInput("memo", "a text memo must be 1 to 28 bytes of UTF-8")
            return cls(MemoType.TEXT, value)
        if memo_type == MemoType.HASH:
            if not re.fullmatch(r"[0-9a-fA-F]{64}", text, re.ASCII):
                raise InvalidInput("memo", "a hash memo must be 64 hexadecimal digits")
            return cls(MemoType.HASH, bytes.fromhex(text))
        raise InvalidInput("memo_type", "must be id, text or hash")

    @property
    def text_as_id(self) -> "Memo | None":
        """The id memo that this text may stand for: its digits, without a leading zero."""
        if self.type is not MemoType.TEXT or not _ID_DIGITS.fullmatch(self.value):
            return None
        number = int(self.value)
        return Memo.of_id(number) if number <= MAX_UINT64 else None

    def __str__(self) -> str:
        """Give the form that `parse` reads; text that is not UTF-8 is shown with escapes."""
        if self.type is MemoType.ID:
            return str(int.from_bytes(self.value, "big"))
        if self.type is MemoType.TEXT:
            return self.value.decode("utf-8", "backslashreplace")
        return self.value.hex()


class Position(int):
    """A place in the ledger order: ledger (32 bits), transaction (20), operation (12).

    Horizon's paging token (SEP-35, TOID); the same on every instance. As a cursor it is exclusive.
    """

    @classmethod
    def of(cls, ledger: int, tx_order: int = 0, operation_order: int = 0) -> Self:
        """Compose a position; orders count from 1, 0 means before the first."""
        return cls(ledger << 32 | tx_order << 12 | operation_order)

    @classmethod
    def after_ledger(cls, ledger: int) -> Self:
        """The last position that `ledger` can hold: everything in it has been read."""
        return cls.of(ledger, 0xFFFFF, 0xFFF)

    @property
    def ledger(self) -> int:
        """The ledger's sequence number."""
        return self >> 32

    @property
    def operation_index(self) -> int:
        """The operation's index in its transaction, from 0 (positions count from 1)."""
        return (self & 0xFFF) - 1


@dataclass(frozen=True, slots=True)
class Landmark:
    """A ledger that was seen, and its hash: another hash there is another history."""

    ledger: int
    hash: str  # hex


@dataclass(frozen=True, slots=True)
class History:
    """One history of a network: after a reset of a test network ledgers begin again.

    `number` counts the resets that an operator has told of.
    """

    number: int = 0
    landmark: Landmark | None = None


@dataclass(frozen=True, slots=True)
class Credit:
    """One increase of a watched account's balance by one operation: the evidence.

    Identity is (`operation_id`, `change_index`): a contract call may credit several times.
    """

    operation_id: Position
    change_index: int
    account: str
    muxed_id: int | None  # the id within the M… address that was paid, if one was
    asset: Asset
    amount: int  # stroops
    tx_hash: str  # hex; the outer hash of a fee-bump transaction
    inner_tx_hash: str | None  # hex; what the payer's wallet may know of a fee-bump transaction
    payer: str
    memo: Memo
    closed_at: datetime

    @property
    def key(self) -> tuple[int, int]:
        """The identity that deduplicates money."""
        return (self.operation_id, self.change_index)

    @property
    def name(self) -> str:
        """The identity as people write it: `OPERATION:i`."""
        return f"{self.operation_id}:{self.change_index}"


@dataclass(frozen=True, slots=True)
class LedgerRecord:
    """One operation record as read: the credits that it holds, or why it cannot be read."""

    operation_id: Position
    credits: tuple[Credit, ...]
    problem: str | None
    source: Mapping[str, Any]  # the record as parsed, kept if it must be quarantined


@dataclass(frozen=True, slots=True)
class Batch:
    """What a stream brought between two positions, in ledger order.

    `records` holds only those with credits or a problem; `read` counts all that were read.
    `closed_at` is the ledger's clock at `upto`: everything closed before it has been read. None
    means that nothing new is known. `unfunded` means that its account is not on the ledger.
    """

    records: tuple[LedgerRecord, ...]
    after: Position  # exclusive
    upto: Position  # inclusive
    closed_at: datetime | None
    read: int
    unfunded: bool = False

    @property
    def says_nothing(self) -> bool:
        """Whether it only shows that its reader is at work: nothing read, nothing new known."""
        return not self.read and self.after == self.upto and self.closed_at is None

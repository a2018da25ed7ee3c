"""What a ledger holds at one moment: accounts, trust lines, data entries, contract balances.

Every change is remembered until it is committed, so that a failed transaction can be taken back
and a successful one can be described entry by entry, as Stellar's transaction meta does.
"""

from dataclasses import dataclass, replace
from typing import Final, cast

from stellar_sdk import Asset

BASE_RESERVE: Final = 5_000_000  # stroops: half a lumen a ledger entry, as on the public network
MAX_INT64: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class AccountKey:
    """The place of an account."""

    account_id: str


@dataclass(frozen=True, slots=True)
class LineKey:
    """The place of a trust line."""

    account_id: str
    asset: Asset


@dataclass(frozen=True, slots=True)
class DataKey:
    """The place of an account's data entry."""

    account_id: str
    name: str


@dataclass(frozen=True, slots=True)
class ContractKey:
    """The place of a contract's balance in one asset, held by that asset's own contract."""

    contract_id: str
    asset: Asset


@dataclass(frozen=True, slots=True)
class Account:
    """An account: its balance in stroops and the sequence number it last used."""

    balance: int
    sequence: int
    subentries: int = 0
    home_domain: str = ""
    sequence_ledger: int = 0
    sequence_time: int = 0

    @property
    def spendable(self) -> int:
        """What it may spend: all but two base reserves and one for each entry that it owns."""
        return self.balance - (2 + self.subentries) * BASE_RESERVE


@dataclass(frozen=True, slots=True)
class TrustLine:
    """A balance in a credit asset, never above its limit."""

    balance: int
    limit: int


@dataclass(frozen=True, slots=True)
class DataEntry:
    """A data entry's bytes."""

    value: bytes


@dataclass(frozen=True, slots=True)
class ContractBalance:
    """What a contract holds; 128 bits wide."""

    balance: int


Key = AccountKey | LineKey | DataKey | ContractKey
Entry = Account | TrustLine | DataEntry | ContractBalance


@dataclass(frozen=True, slots=True)
class Change:
    """One entry before and after; None where it did not exist.

    `modified_before` is the ledger that had last changed it until then.
    """

    key: Key
    before: Entry | None
    after: Entry | None
    modified_before: int


class State:
    """All entries, with every change since the last `commit` in order."""

    def __init__(self) -> None:
        self.sequence = 0
        self._entries: dict[Key, Entry] = {}
        self._modified: dict[Key, int] = {}
        self._changes: list[Change] = []

    def account(self, account_id: str) -> Account | None:
        """The account, if there is one."""
        return cast("Account | None", self._entries.get(AccountKey(account_id)))

    def line(self, account_id: str, asset: Asset) -> TrustLine | None:
        """The trust line, if there is one."""
        return cast("TrustLine | None", self._entries.get(LineKey(account_id, asset)))

    def contract_balance(self, contract_id: str, asset: Asset) -> int:
        """What a contract holds of an asset."""
        entry = cast("ContractBalance | None", self._entries.get(ContractKey(contract_id, asset)))
        return entry.balance if entry else 0

    def data(self, account_id: str, name: str) -> bytes | None:
        """The value of a data entry, if there is one."""
        entry = cast("DataEntry | None", self._entries.get(DataKey(account_id, name)))
        return entry.value if entry else None

    def lines_of(self, account_id: str) -> dict[Asset, TrustLine]:
        """All trust lines of an account, in the order they were made."""
        return {
            key.asset: cast("TrustLine", entry)
            for key, entry in self._entries.items()
            if isinstance(key, LineKey) and key.account_id == account_id
        }

    def data_of(self, account_id: str) -> dict[str, bytes]:
        """All data entries of an account."""
        return {
            key.name: cast("DataEntry", entry).value
            for key, entry in self._entries.items()
            if isinstance(key, DataKey) and key.account_id == account_id
        }

    def modified(self, key: Key) -> int:
        """The ledger that last changed an entry."""
        return self._modified.get(key, 0)

    def put(self, key: Key, entry: Entry | None) -> None:
        """Write an entry as of the ledger `sequence`, or remove it with None."""
        self._changes.append(Change(key, self._entries.get(key), entry, self.modified(key)))
        self._write(key, entry, self.sequence)

    def mark(self) -> int:
        """A place to go back to, or to describe changes from."""
        return len(self._changes)

    def changes_since(self, mark: int) -> tuple[Change, ...]:
        """The net changes since a mark, one for each entry, in the order first touched."""
        net: dict[Key, Change] = {}
        for change in self._changes[mark:]:
            first = net.get(change.key)
            net[change.key] = replace(first, after=change.after) if first else change
        return tuple(c for c in net.values() if c.before is not None or c.after is not None)

    def roll_back(self, mark: int) -> None:
        """Undo all changes since a mark."""
        while len(self._changes) > mark:
            change = self._changes.pop()
            self._write(change.key, change.before, change.modified_before)

    def commit(self) -> None:
        """Forget how it came to this."""
        self._changes.clear()

    def _write(self, key: Key, entry: Entry | None, modified: int) -> None:
        if entry is None:
            self._entries.pop(key, None)
            self._modified.pop(key, None)
        else:
            self._entries[key] = entry
            self._modified[key] = modified

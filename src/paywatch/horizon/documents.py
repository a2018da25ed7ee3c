"""The documents that the source asks Horizon for, beside its records."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from paywatch.domain.ledger import Position
from paywatch.errors import (
    HistoryGap,
    HorizonUnavailable,
    NetworkReset,
    RecordError,
    WrongNetwork,
)
from paywatch.horizon.fields import Fields, read_object, read_text, read_time

PAGE_LIMIT: Final = 200  # Horizon's own maximum
RESET_MARGIN_LEDGERS: Final = 1000  # over an hour: an instance that lags as far is a dead one
_FIRST_LEDGER_WITH_OPERATIONS: Final = 2
_MAX_LEDGER: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Root:
    """What an instance says of itself; `closed_at` is the ledger's clock at `latest`."""

    passphrase: str
    latest: int  # ledger
    closed_at: datetime
    elder: int  # the oldest ledger kept

    @classmethod
    def parse(cls, document: Fields) -> "Root":
        """Read `/`.

        Raises:
            HorizonUnavailable: `malformed`; `not_ready` while it has no history yet.
        """
        try:
            latest = read_ledger(document, "history_latest_ledger")
            elder = read_ledger(document, "history_elder_ledger")
            passphrase = read_text(document, "network_passphrase")
            closed_at = read_time(document, "history_latest_ledger_closed_at")
        except RecordError as error:
            raise HorizonUnavailable("malformed", f"root: {error}") from error
        if not 0 < elder <= latest:
            raise HorizonUnavailable("not_ready", "Horizon has no history yet")
        return cls(passphrase, latest, closed_at, elder)

    @property
    def tip(self) -> Position:
        """After everything that this instance has."""
        return Position.after_ledger(self.latest)

    def require_network(self, passphrase: str) -> None:
        """Refuse another network.

        Raises:
            WrongNetwork: naming both.
        """
        if self.passphrase != passphrase:
            raise WrongNetwork(
                f"Horizon serves {self.passphrase[:80]!r}, the settings name {passphrase!r}: "
                "change PAYWATCH_HORIZON_URL or PAYWATCH_NETWORK_PASSPHRASE"
            )

    def require_continuation_of(self, earlier: "Root") -> None:
        """Refuse a history that is not the one of an earlier root.

        An instance that lags is behind in ledgers and in time. Fewer ledgers at a later time, or
        the same ledger at another time, are another history, however near its tip is to the cursor.

        Raises:
            NetworkReset: the ledgers began again.
        """
        is_lower = self.latest < earlier.latest and self.closed_at > earlier.closed_at
        if is_lower or (self.latest == earlier.latest and self.closed_at != earlier.closed_at):
            raise NetworkReset(
                f"Horizon's latest ledger is {self.latest}, and it was {earlier.latest} before: "
                "the network began again"
            )

    def require_history(self, after: Position) -> None:
        """Refuse a cursor that this instance cannot continue from.

        Horizon would not say so: it moves an older cursor to its oldest ledger in silence, and
        answers one ahead of its tip with an empty page.

        Raises:
            HistoryGap: something between the cursor and the oldest ledger is not kept.
            NetworkReset: the tip is far below the cursor.
        """
        is_whole = self.elder <= _FIRST_LEDGER_WITH_OPERATIONS
        if not is_whole and after < Position.after_ledger(self.elder - 1):
            raise HistoryGap(
                f"read up to ledger {after.ledger}, but this Horizon keeps ledgers from "
                f"{self.elder} only: use one with longer history, or accept the loss",
                self.elder,
            )
        if self.latest + RESET_MARGIN_LEDGERS < after.ledger:
            raise NetworkReset(
                f"read up to ledger {after.ledger}, but Horizon's latest is {self.latest}: "
                "the network began again, or this is another one"
            )


@dataclass(frozen=True, slots=True)
class TxEnding:
    """How a transaction ended, and in which ledger."""

    is_successful: bool
    ledger: int
    closed_at: datetime

    @classmethod
    def parse(cls, document: Fields, tx_hash: str) -> "TxEnding":
        """Read `/transactions/{hash}`, which echoes the hash that was asked for, inner or outer.

        Raises:
            HorizonUnavailable: `malformed`; another transaction's document is, too.
        """
        is_successful = document.get("successful")
        if type(is_successful) is not bool or document.get("hash") != tx_hash:
            raise HorizonUnavailable(
                "malformed", f"transaction: is not {tx_hash}, or has no ending"
            )
        try:
            ledger, closed_at = read_ledger(document, "ledger"), read_time(document, "created_at")
        except RecordError as error:
            raise HorizonUnavailable("malformed", f"transaction: {error}") from error
        return cls(is_successful, ledger, closed_at)


def read_ledger(document: Fields, name: str) -> int:
    """Read a ledger's sequence number."""
    value = document.get(name)
    if type(value) is not int or not 0 <= value <= _MAX_LEDGER:  # a bool is an int, too
        raise RecordError(f"{name}: must be a ledger's number")
    return value


def read_records(document: Fields) -> list[Mapping[str, Any]]:
    """Read the records of a page.

    Raises:
        HorizonUnavailable: `malformed`.
    """
    try:
        records = read_object(document, "_embedded").get("records")
    except RecordError as error:
        raise HorizonUnavailable("malformed", f"page: {error}") from error
    if not isinstance(records, list) or len(records) > PAGE_LIMIT:
        raise HorizonUnavailable("malformed", f"page: must have at most {PAGE_LIMIT} records")
    return records


def is_untouched_since(account: Fields, since: Position) -> bool:
    """Tell whether an account's own document proves that it was paid nothing after `since`.

    A payment changes the account's entry or a trust line's, and both say when they last changed.
    """
    balances = account.get("balances")
    entries = [account, *(balances if isinstance(balances, list) else ())]
    changed = [
        entry["last_modified_ledger"]
        for entry in entries
        if isinstance(entry, Mapping) and "last_modified_ledger" in entry
    ]
    return "last_modified_ledger" in account and all(
        type(ledger) is int and Position.after_ledger(ledger) <= since for ledger in changed
    )

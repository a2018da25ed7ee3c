"""What a payer announces, what the ledger says of it, and what becomes of the session then."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from paywatch.domain.checkout import TRANSITIONS, Cause, SessionStatus
from paywatch.domain.ledger import LedgerRecord
from paywatch.errors import InvalidInput

_TX_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)


def parse_tx_hash(text: str, field: str = "tx_hash") -> str:
    """Read a transaction's hash as people have it; lower case is what Horizon takes.

    Raises:
        InvalidInput: not 64 hexadecimal digits. The text is not repeated: it may be a seed.
    """
    tx_hash = text.strip().lower()
    if not _TX_HASH.fullmatch(tx_hash):
        raise InvalidInput(field, "must be a transaction's hash: 64 hexadecimal digits")
    return tx_hash


@dataclass(frozen=True, slots=True)
class Announcement:
    """A transaction that a payer named.

    Attributes:
        tx_hash: hex; a fee bump's outer hash or the inner one.
        announced_at: by our clock.
        until: its own time bound, if it is known: no ledger that closes later can hold it.
    """

    tx_hash: str
    announced_at: datetime
    until: datetime | None = None


class Reception(StrEnum):
    """How an announcement is taken."""

    TAKEN = "taken"  # the session is in processing now
    REPEATED = "repeated"  # it was, by this very transaction; nothing changes
    REPLACED = "replaced"  # it was, by another transaction, which is not waited for any more
    LOOKED_UP = "looked_up"  # the session does not wait: the transaction is looked up, no more


def receive(status: SessionStatus, current: Announcement | None, tx_hash: str) -> Reception:
    """Say how a session that stands so takes a transaction.

    A session that has money on it, or waits for none any more, keeps its status: back from
    `processing` it could only go to `pending`, which would be wrong.
    """
    if Cause.ANNOUNCED not in TRANSITIONS[status]:
        return Reception.LOOKED_UP
    if status is not SessionStatus.PROCESSING:
        return Reception.TAKEN
    is_same = current is not None and current.tx_hash == tx_hash
    return Reception.REPEATED if is_same else Reception.REPLACED


class TxState(StrEnum):
    """What one instance of Horizon knows of a transaction."""

    UNKNOWN = "unknown"
    FAILED = "failed"
    SUCCEEDED = "succeeded"


@dataclass(frozen=True, slots=True)
class Trace:
    """What was found by one look-up.

    Attributes:
        tip_closed_at: the ledger's clock at the latest ledger of the instance that was asked, read
            before the look-up: what closed up to then would have been found.
        ledger, closed_at: where it is, unless it is unknown.
        records: what a successful one credits to watched accounts.
    """

    state: TxState
    tip_closed_at: datetime
    ledger: int | None = None
    closed_at: datetime | None = None
    records: tuple[LedgerRecord, ...] = ()


def conclude(announcement: Announcement, trace: Trace) -> Cause | None:
    """Say why a session need not wait for its transaction any more; None if it has to.

    The credits of a successful one have been settled before: a session that still waits for it was
    paid nothing by it. A failed one has used its sequence number and can never succeed.
    """
    if trace.state is TxState.FAILED:
        return Cause.FAILED
    if trace.state is TxState.SUCCEEDED:
        return Cause.PAYS_NOTHING
    if announcement.until is not None and trace.tip_closed_at > announcement.until:
        return Cause.TIME_BOUNDS_PASSED
    return None


def is_overdue(
    announcement: Announcement, trace: Trace, now: datetime, patience: timedelta
) -> bool:
    """Whether a transaction that is unknown has been waited for long enough.

    Both clocks must say so: an instance that lags, or stands still, has not looked for so long.
    """
    return min(now, trace.tip_closed_at) > announcement.announced_at + patience

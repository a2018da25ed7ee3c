"""What becomes of an announced transaction: tables of every case."""

from datetime import datetime, timedelta

import pytest

from paywatch.domain.announcement import (
    Announcement,
    Reception,
    Trace,
    TxState,
    conclude,
    is_overdue,
    parse_tx_hash,
    receive,
)
from paywatch.domain.checkout import TRANSITIONS, Cause, SessionStatus
from paywatch.errors import InvalidInput
from support import NOW

THIS, OTHER = "ab" * 32, "cd" * 32
PATIENCE = timedelta(minutes=5)
SECOND = timedelta(seconds=1)
S, R = SessionStatus, Reception


@pytest.mark.parametrize(
    ("status", "current", "reception"),
    [
        (S.PENDING, None, R.TAKEN),
        (S.PENDING, THIS, R.TAKEN),  # it came to nothing before; it may come now
        (S.PENDING, OTHER, R.TAKEN),
        (S.PROCESSING, THIS, R.REPEATED),
        (S.PROCESSING, OTHER, R.REPLACED),
        (S.PARTIALLY_PAID, None, R.LOOKED_UP),
        (S.PAID, None, R.LOOKED_UP),
        (S.PAID, THIS, R.LOOKED_UP),
        (S.EXPIRED, OTHER, R.LOOKED_UP),
        (S.CANCELED, None, R.LOOKED_UP),
    ],
)
def test_how_an_announcement_is_taken(
    status: SessionStatus, current: str | None, reception: Reception
) -> None:
    known = None if current is None else Announcement(current, NOW)
    assert receive(status, known, THIS) is reception


@pytest.mark.parametrize(
    ("state", "until", "tip", "cause"),
    [
        (TxState.FAILED, None, NOW, Cause.FAILED),
        (TxState.FAILED, NOW, NOW + SECOND, Cause.FAILED),
        (TxState.SUCCEEDED, None, NOW, Cause.PAYS_NOTHING),
        (TxState.SUCCEEDED, NOW, NOW + SECOND, Cause.PAYS_NOTHING),
        (TxState.UNKNOWN, None, NOW + timedelta(days=9), None),
        (TxState.UNKNOWN, NOW, NOW - SECOND, None),
        (TxState.UNKNOWN, NOW, NOW, None),  # a ledger that closes at the bound may hold it
        (TxState.UNKNOWN, NOW, NOW + SECOND, Cause.TIME_BOUNDS_PASSED),
    ],
)
def test_what_ends_the_waiting_for_a_transaction(
    state: TxState, until: datetime | None, tip: datetime, cause: Cause | None
) -> None:
    assert conclude(Announcement(THIS, NOW, until), Trace(state, tip)) is cause


@pytest.mark.parametrize(
    ("age", "tip", "overdue"),
    [
        (PATIENCE + SECOND, PATIENCE + SECOND, True),
        (PATIENCE, PATIENCE + SECOND, False),
        (PATIENCE + SECOND, PATIENCE, False),  # a lagging Horizon sends nobody back
        (timedelta(days=9), -PATIENCE, False),
        (timedelta(0), timedelta(days=9), False),  # nor does a clock of ours that is behind
    ],
)
def test_patience_ends_when_both_clocks_say_so(
    age: timedelta, tip: timedelta, overdue: bool
) -> None:
    trace = Trace(TxState.UNKNOWN, NOW + tip)
    assert is_overdue(Announcement(THIS, NOW), trace, NOW + age, PATIENCE) is overdue


def test_every_ending_leads_back_to_pending() -> None:
    endings = {Cause.FAILED, Cause.PAYS_NOTHING, Cause.TIME_BOUNDS_PASSED, Cause.UNTRACED}
    found = {cause for cause, after in TRANSITIONS[S.PROCESSING].items() if after is S.PENDING}
    assert found == endings
    assert not any(endings & set(TRANSITIONS[s]) for s in S if s is not S.PROCESSING)


def test_a_hash_is_taken_in_either_case() -> None:
    assert parse_tx_hash(f" {THIS.upper()}\n") == THIS


@pytest.mark.parametrize("text", ["", "ab" * 31, "ab" * 33, "xy" * 32, "٣" * 64, "S" + "A" * 55])
def test_what_is_no_hash_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(InvalidInput, match="64 hexadecimal digits") as caught:
        parse_tx_hash(text)
    assert not text or text not in str(caught.value)

"""A refund, as a table: who paid whom what, when, and how much of it is left."""

from typing import Any

import pytest

from paywatch.domain.announcement import Trace, TxState
from paywatch.domain.ledger import LedgerRecord, Position
from paywatch.domain.refund import Refund
from paywatch.errors import InvalidInput
from support import ACCOUNT, PAYER, USDC, address, closing, make_batch, make_credit

CREDIT = make_credit(100)
BACK: dict[str, Any] = {"account": PAYER, "payer": ACCOUNT, "ledger": 1500}


def trace(*amounts: int, state: TxState = TxState.SUCCEEDED, **changes: Any) -> Trace:
    back = [make_credit(a, op=n, **(BACK | changes)) for n, a in enumerate(amounts, 1)]
    records = make_batch(back).records if back else ()
    return Trace(state, closing(2000), 1500, closing(1500), records)


@pytest.mark.parametrize(("amounts", "sum_"), [((100,), 100), ((60, 40), 100), ((250,), 250)])
def test_all_that_one_transaction_pays_back_counts(amounts: tuple[int, ...], sum_: int) -> None:
    refund = Refund.of(CREDIT, trace(*amounts))
    assert refund == Refund(make_credit(1, **BACK).tx_hash, sum_)


@pytest.mark.parametrize(
    "changes",
    [
        {"account": address("somebody")},
        {"payer": address("somebody")},
        {"asset": USDC},
        {"ledger": 1000},
        {"ledger": 1001},  # the credit itself
    ],
    ids=str,
)
def test_what_went_elsewhere_or_before_pays_nothing_back(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=f"tx: has paid no native from {ACCOUNT} to {PAYER}"):
        Refund.of(CREDIT, trace(100, **changes))


def test_it_has_to_be_on_the_ledger_and_to_have_succeeded() -> None:
    with pytest.raises(InvalidInput, match="tx: is not on the ledger up to 2026-11-20T13:23:20"):
        Refund.of(CREDIT, Trace(TxState.UNKNOWN, closing(2000)))
    with pytest.raises(InvalidInput, match="tx: has failed on the ledger"):
        Refund.of(CREDIT, trace(100, state=TxState.FAILED))
    with pytest.raises(InvalidInput, match="has paid no"):
        Refund.of(CREDIT, trace())


def test_what_cannot_be_read_is_not_guessed_at() -> None:
    record = LedgerRecord(Position.of(1500, 1, 1), (), "amount: missing", {})
    unread = Trace(TxState.SUCCEEDED, closing(2000), 1500, closing(1500), (record,))
    with pytest.raises(InvalidInput, match="tx: cannot be read: amount: missing"):
        Refund.of(CREDIT, unread)


@pytest.mark.parametrize(
    ("amount", "returned", "covers"),
    [
        (100, 0, True),
        (99, 0, False),
        (200, 100, True),
        (199, 100, False),
        (100, 100, False),
    ],
)
def test_it_covers_what_it_has_not_returned_yet(amount: int, returned: int, covers: bool) -> None:
    refund = Refund("ab" * 32, amount)
    if covers:
        refund.require_cover(CREDIT, returned)
        return
    with pytest.raises(InvalidInput, match="left to return, the credit is"):
        refund.require_cover(CREDIT, returned)

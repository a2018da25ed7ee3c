"""The decision, as a table: over, under and exact, in time and late, each status, each asset."""

from dataclasses import replace
from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paywatch.domain.checkout import OPEN, TRANSITIONS, Cause, PaidHow, SessionStatus
from paywatch.domain.ledger import MAX_STROOPS, Asset, Credit, Memo, MemoType, Position
from paywatch.domain.policy import Policy
from paywatch.domain.settlement import (
    BatchSettlement,
    Outcome,
    apply_by_word,
    decide,
    decide_batch,
    judge,
    prove,
)
from paywatch.errors import InvalidInput
from support import NOW, USDC, XLM, address, closing, make_credit, make_session

IN_TIME, LATE = closing(1100), closing(1101)
SPOOFED_XLM = Asset("XLM", address("spoofer"))
SPOOFED_USDC = Asset("USDC", address("spoofer"))


def expected(status: SessionStatus, asset_is_right: bool, in_time: bool) -> Outcome:
    """The rules in the order in which they are asked."""
    if not asset_is_right:
        return Outcome.WRONG_ASSET
    if status is SessionStatus.CANCELED:
        return Outcome.CANCELED
    if status is SessionStatus.PAID:
        return Outcome.DUPLICATE
    return Outcome.APPLIED if in_time else Outcome.LATE


@pytest.mark.parametrize(
    ("status", "asked", "came", "closed_at"),
    list(
        product(
            SessionStatus,
            (XLM, USDC),
            (XLM, USDC, SPOOFED_XLM, SPOOFED_USDC),
            (IN_TIME, LATE),
        )
    ),
)
def test_what_a_credit_does_depends_on_asset_status_and_the_ledgers_clock(
    status: SessionStatus, asked: Asset, came: Asset, closed_at: object
) -> None:
    session = make_session(status=status, asset=asked, expires_at=IN_TIME)
    credit = make_credit(asset=came, closed_at=closed_at)
    assert judge(session, credit) is expected(status, asked == came, closed_at == IN_TIME)


@pytest.mark.parametrize(
    ("amount", "status", "how", "excess"),
    [
        (1, SessionStatus.PARTIALLY_PAID, None, 0),
        (99, SessionStatus.PARTIALLY_PAID, None, 0),
        (100, SessionStatus.PAID, PaidHow.EXACT, 0),
        (101, SessionStatus.PAID, PaidHow.OVER, 1),
        (2**63 - 1, SessionStatus.PAID, PaidHow.OVER, 2**63 - 101),
    ],
)
def test_under_exact_and_over(
    amount: int, status: SessionStatus, how: PaidHow | None, excess: int
) -> None:
    settlement = decide(make_session(), [make_credit(amount)])
    assert settlement.session.status is status
    assert settlement.session.paid_how is how
    assert settlement.session.excess == excess
    assert (settlement.completed_by is None) == (status is not SessionStatus.PAID)


@pytest.mark.parametrize("status", sorted(OPEN | {SessionStatus.EXPIRED}))
def test_every_status_that_money_can_reach_becomes_paid_in_one_transition(
    status: SessionStatus,
) -> None:
    credit = make_credit(100)
    settlement = decide(make_session(status=status), [credit])
    [transition] = settlement.transitions
    assert (transition.before, transition.after) == (status, SessionStatus.PAID)
    assert (transition.cause, transition.credit) == (Cause.CREDITED_IN_FULL, credit)


def test_an_expired_session_with_a_part_in_time_stays_expired() -> None:
    settlement = decide(make_session(status=SessionStatus.EXPIRED), [make_credit(40)])
    assert settlement.session.status is SessionStatus.EXPIRED
    assert settlement.session.received == 40
    assert settlement.transitions == ()


def test_credits_are_folded_in_ledger_order_however_they_come() -> None:
    first, second, third = (make_credit(50, ledger=ledger) for ledger in (1001, 1002, 1003))
    settlement = decide(make_session(), [third, first, second])
    assert settlement.outcomes == (
        (first, Outcome.APPLIED),
        (second, Outcome.APPLIED),
        (third, Outcome.DUPLICATE),
    )
    assert settlement.completed_by == second
    assert settlement.session.received == 100


def test_the_second_operation_of_the_paying_transaction_is_a_duplicate_in_any_batch() -> None:
    """Else a page's end in the middle of a transaction would change the result."""
    one, two = make_credit(100, op=1), make_credit(50, op=2)
    together = decide(make_session(), [one, two])
    apart = decide(decide(make_session(), [one]).session, [two])
    assert together.session == apart.session
    assert together.outcomes[1] == apart.outcomes[0] == (two, Outcome.DUPLICATE)


def test_a_late_credit_between_credits_in_time_is_held_alone() -> None:
    session = make_session(expires_at=closing(1002))
    credits_ = [make_credit(60, ledger=1001), make_credit(60, ledger=1003)]
    settlement = decide(session, credits_)
    assert [outcome for _, outcome in settlement.outcomes] == [Outcome.APPLIED, Outcome.LATE]
    assert settlement.session.status is SessionStatus.PARTIALLY_PAID


def test_muxed_wins_over_the_memo_and_an_unknown_muxed_id_matches_nothing() -> None:
    one, two = make_session(1), make_session(2)
    by_muxed = make_credit(muxed_id=2, memo=Memo.of_id(1))
    unknown = make_credit(ledger=1002, muxed_id=3, memo=Memo.of_id(1))
    decided = decide_batch([one, two], [by_muxed, unknown])
    assert [s.session.id for s in decided.settlements] == [two.id]
    assert decided.unmatched == (unknown,)


@pytest.mark.parametrize(
    "memo",
    [
        Memo(MemoType.TEXT, b"1"),
        Memo(MemoType.TEXT, b"\0\0\0\0\0\0\0\x01"),
        Memo(MemoType.HASH, bytes(31) + b"\x01"),
        Memo(MemoType.RETURN, bytes(31) + b"\x01"),
        Memo.none(),
    ],
)
def test_a_memo_that_looks_alike_is_another_memo(memo: Memo) -> None:
    strict = Policy(text_for_id=False).terms(100, closing(1100))
    session = make_session(1, terms=strict)
    assert decide_batch([session], [make_credit(memo=memo)]).unmatched != ()


def test_a_hash_memo_and_a_return_memo_of_the_same_bytes_differ() -> None:
    session = make_session(memo=Memo(MemoType.HASH, bytes(32)))
    credit = make_credit(memo=Memo(MemoType.RETURN, bytes(32)))
    assert decide_batch([session], [credit]).unmatched == (credit,)


WITHIN = timedelta(hours=24)


@pytest.mark.parametrize("tolerance_bps", [0, 50, 1000])
@pytest.mark.parametrize("amount", [999, 1000, 1001, 949, 950, 994, 995, 899, 900])
@pytest.mark.parametrize(
    "late", [None, timedelta(seconds=0), WITHIN, WITHIN + timedelta(seconds=1)]
)
@pytest.mark.parametrize("grace", [None, WITHIN])
def test_policy_over_under_exact_in_time_and_late(
    tolerance_bps: int, amount: int, late: timedelta | None, grace: timedelta | None
) -> None:
    deadline = closing(1100)
    terms = Policy(tolerance_bps, grace).terms(1000, deadline)
    session = make_session(amount=1000, expires_at=deadline, terms=terms)
    closed_at = NOW if late is None else deadline + late
    settlement = decide(session, [make_credit(amount, closed_at=closed_at)])

    accepted = closed_at <= deadline + (grace or timedelta(0))
    enough = amount >= {0: 1000, 50: 995, 1000: 900}[tolerance_bps]
    [(_, outcome)] = settlement.outcomes
    assert outcome is (Outcome.APPLIED if accepted else Outcome.LATE)
    if not accepted:
        assert settlement.session == session
        return
    assert settlement.session.status is (
        SessionStatus.PAID if enough else SessionStatus.PARTIALLY_PAID
    )
    if enough:
        was_late, difference = closed_at > deadline, amount - 1000
        assert settlement.session.paid_how is (
            PaidHow.LATE
            if was_late
            else PaidHow.UNDER
            if difference < 0
            else PaidHow.OVER
            if difference
            else PaidHow.EXACT
        )


@pytest.mark.parametrize("bps", [-1, 1001])
def test_a_tolerance_out_of_bounds_is_refused(bps: int) -> None:
    with pytest.raises(InvalidInput, match="tolerance"):
        Policy(tolerance_bps=bps)


@pytest.mark.parametrize("grace", [timedelta(0), timedelta(days=31), timedelta(seconds=-1)])
def test_a_grace_out_of_bounds_is_refused(grace: timedelta) -> None:
    with pytest.raises(InvalidInput, match="late_grace"):
        Policy(late_grace=grace)


@given(st.integers(1, MAX_STROOPS), st.integers(0, 1000))
def test_no_tolerance_makes_an_amount_nothing_or_more(amount: int, bps: int) -> None:
    assert 1 <= Policy(bps).terms(amount, NOW).least_amount <= amount


def test_the_digits_of_an_id_as_text_name_the_session_but_the_very_text_comes_first() -> None:
    by_id, by_text = make_session(7), make_session(8, memo=Memo(MemoType.TEXT, b"7"))
    digits = make_credit(memo=Memo(MemoType.TEXT, b"7"))
    assert [s.session.id for s in decide_batch([by_id], [digits]).settlements] == [by_id.id]
    both = decide_batch([by_id, by_text], [digits]).settlements
    assert [s.session.id for s in both] == [by_text.id]


@pytest.mark.parametrize("text", [b"07", b"+7", b" 7", b"7 ", b"", "\u0667".encode(), b"7.0"])
def test_text_that_is_not_an_ids_very_digits_names_no_id(text: bytes) -> None:
    assert decide_batch([make_session(7)], [make_credit(memo=Memo(MemoType.TEXT, text))]).unmatched


def test_text_beyond_64_bits_is_no_id() -> None:
    assert Memo(MemoType.TEXT, b"18446744073709551615").text_as_id == Memo.of_id(2**64 - 1)
    assert Memo(MemoType.TEXT, b"18446744073709551616").text_as_id is None


def applied(decided: BatchSettlement) -> list[Credit]:
    return [credit for credit, outcome, _ in decided.outcomes if outcome is Outcome.APPLIED]


def test_money_that_came_before_a_session_was_opened_is_not_for_it() -> None:
    """A merchant may use a reference again, and a backfill may read the past."""
    session = make_session(opened_position=Position.of(1001, 1, 1))
    before = make_credit(ledger=1001, tx=1, op=1)
    after = make_credit(ledger=1001, tx=1, op=2)
    decided = decide_batch([session], [before, after])
    assert decided.unmatched == (before,)
    assert applied(decided) == [after]


def test_only_sessions_to_which_something_was_applied_are_changed() -> None:
    paid = make_session(1, status=SessionStatus.PAID, received=100)
    open_ = make_session(2)
    decided = decide_batch(
        [paid, open_], [make_credit(), make_credit(ledger=1002, memo=Memo.of_id(2))]
    )
    assert [settlement.session.id for settlement in decided.changed] == [open_.id]
    assert [credit.operation_id.ledger for credit in applied(decided)] == [1002]


def test_proof_of_a_paid_session_takes_what_paid_it_and_holds_the_rest() -> None:
    session = make_session(status=SessionStatus.PAID, received=100)
    first, second = make_credit(100), make_credit(100, ledger=1002)
    proven = prove(session, [second, first], 0)
    assert proven.session == replace(session, paid_at=first.closed_at)
    assert proven.outcomes == ((first, Outcome.APPLIED), (second, Outcome.DUPLICATE))
    assert proven.transitions == ()


def test_proof_that_does_not_suffice_leaves_it_paid_with_what_was_found() -> None:
    session = make_session(status=SessionStatus.PAID, received=100)
    proven = prove(session, [make_credit(10)], 20)
    assert proven.session == replace(session, received=30)
    assert proven.completed_by is None


def test_the_table_of_transitions_is_whole() -> None:
    assert set(TRANSITIONS) == set(SessionStatus)
    assert {c for causes in TRANSITIONS.values() for c in causes} == set(Cause)
    assert TRANSITIONS[SessionStatus.PAID] == TRANSITIONS[SessionStatus.CANCELED] == {}
    reachable = {after for causes in TRANSITIONS.values() for after in causes.values()}
    assert reachable == set(SessionStatus)


HELD_AS = [o for o in Outcome if o not in {Outcome.APPLIED, Outcome.RETURNED}]
TAKING = OPEN | {SessionStatus.EXPIRED}


@pytest.mark.parametrize(
    ("status", "held_as", "amount"), list(product(SessionStatus, HELD_AS, (60, 100, 140)))
)
def test_a_word_applies_what_is_held_to_every_session_that_is_neither_paid_nor_canceled(
    status: SessionStatus, held_as: Outcome, amount: int
) -> None:
    """Whatever it was held for: over, under and exact, in time and late."""
    session = make_session(status=status, expires_at=IN_TIME)
    late = held_as in {Outcome.LATE, Outcome.UNMATCHED}
    credit = make_credit(amount, closed_at=LATE if late else IN_TIME)
    if status not in TAKING:
        with pytest.raises(InvalidInput, match=f"session: is {status}; open another one"):
            apply_by_word(session, credit)
        return
    settlement = apply_by_word(session, credit)
    assert settlement.outcomes == ((credit, Outcome.APPLIED),)
    assert settlement.session.received == amount
    if amount < 100:
        stays = status is SessionStatus.EXPIRED
        after = SessionStatus.EXPIRED if stays else SessionStatus.PARTIALLY_PAID
        assert (settlement.session.status, settlement.completed_by) == (after, None)
        return
    assert settlement.session.status is SessionStatus.PAID
    assert settlement.completed_by == credit
    on_time = PaidHow.OVER if amount > 100 else PaidHow.EXACT
    assert settlement.session.paid_how is (PaidHow.LATE if late else on_time)


def test_a_word_adds_to_what_came_before_and_the_terms_still_hold() -> None:
    terms = Policy(tolerance_bps=1000).terms(100, NOW + timedelta(minutes=30))
    session = make_session(status=SessionStatus.PARTIALLY_PAID, received=50, terms=terms)
    settlement = apply_by_word(session, make_credit(40))
    assert (settlement.session.status, settlement.session.paid_how) == (
        SessionStatus.PAID,
        PaidHow.UNDER,
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"account": address("other")}, f"is on {make_session().account}; the credit came to"),
        ({"asset": USDC}, "asks for native; the credit is USDC"),
        ({"asset": SPOOFED_XLM}, "asks for native; the credit is XLM"),
    ],
)
def test_no_word_makes_another_account_or_asset_fit(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInput, match=f"session: {why}"):
        apply_by_word(make_session(), make_credit(**changes))

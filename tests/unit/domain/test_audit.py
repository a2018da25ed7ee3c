"""What an audit makes of what the ledger shows and what we hold."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from paywatch.domain.audit import Comparison, Finding, Kind, compare
from paywatch.domain.ledger import Credit, LedgerRecord, Memo, Position
from support import ACCOUNT, START, USDC, address, make_batch, make_credit

OTHER = address("other shop")
SINCE = {ACCOUNT: START}
BOTH = {ACCOUNT: START, OTHER: START}
CREDIT = make_credit()
UNREADABLE = LedgerRecord(CREDIT.operation_id, (), "amount: missing", {"id": "x"})


def shown(*credits_: Credit) -> tuple[LedgerRecord, ...]:
    return make_batch(credits_).records if credits_ else ()


def places(found: Comparison) -> list[tuple[Kind, int, int | None]]:
    return [finding.place for finding in found.findings]


def test_what_both_have_is_no_finding() -> None:
    credits_ = [make_credit(op=1), make_credit(op=2, change_index=3), make_credit(ledger=1002)]
    assert compare(shown(*credits_), credits_, SINCE) == Comparison((), ())


def test_what_the_ledger_alone_has_is_missing() -> None:
    second = make_credit(op=2)
    found = compare(shown(CREDIT, second), [CREDIT], SINCE)
    assert places(found) == [(Kind.MISSING, second.operation_id, 0)]
    assert [record.credits for record in found.missing] == [(second,)]


def test_of_one_operation_only_the_credit_that_is_missing_is_settled() -> None:
    first, second = make_credit(change_index=0), make_credit(change_index=1)
    found = compare(shown(first, second), [first], SINCE)
    assert [record.credits for record in found.missing] == [(second,)]


def test_what_we_alone_have_is_extra() -> None:
    found = compare((), [CREDIT], SINCE)
    [extra] = found.mismatches
    assert extra.place == (Kind.EXTRA, CREDIT.operation_id, 0)
    assert CREDIT.tx_hash in extra.problem
    assert found.missing == ()


def test_an_operation_that_is_shown_without_our_credit_makes_it_extra() -> None:
    first, second = make_credit(change_index=0), make_credit(change_index=1)
    found = compare(shown(first), [first, second], SINCE)
    assert places(found) == [(Kind.EXTRA, second.operation_id, 1)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount", 99),
        ("asset", USDC),
        ("account", OTHER),
        ("tx_hash", "ab" * 32),
        ("memo", Memo.of_id(2)),
        ("muxed_id", 7),
        ("closed_at", CREDIT.closed_at + timedelta(seconds=1)),
        ("payer", OTHER),
        ("inner_tx_hash", "cd" * 32),
    ],
)
def test_whatever_differs_is_named_with_both_values(field: str, value: Any) -> None:
    ours = replace(CREDIT, **{field: value})
    found = compare(shown(CREDIT), [ours], SINCE)
    assert places(found) == [(Kind.DIFFERENT, CREDIT.operation_id, 0)]
    problem = found.mismatches[0].problem
    assert problem == f"{field}: the ledger has {getattr(CREDIT, field)}, we hold {value}"


def test_one_operation_pays_several_accounts_and_each_credit_is_its_own() -> None:
    theirs = make_credit(change_index=1, account=OTHER)
    found = compare(shown(CREDIT, theirs), [CREDIT], BOTH)
    assert [record.credits for record in found.missing] == [(theirs,)]
    assert compare(shown(CREDIT), [CREDIT, theirs], SINCE) == Comparison((), ()), "not its account"


@pytest.mark.parametrize("held", [[], [CREDIT]])
def test_what_lies_before_the_watching_began_may_be_there_and_need_not(held: list[Credit]) -> None:
    since = {ACCOUNT: CREDIT.operation_id}
    assert compare(shown(CREDIT), held, since) == Comparison((), ())
    assert compare((), held, since) == Comparison((), ())


def test_a_record_that_cannot_be_read_is_missing_until_it_is_in_quarantine() -> None:
    found = compare([UNREADABLE], [], SINCE)
    assert found.missing == (UNREADABLE,)
    assert found.findings == [
        Finding(
            Kind.MISSING,
            None,
            CREDIT.operation_id,
            None,
            "cannot be read, and is not in quarantine: amount: missing",
        )
    ]
    assert found.without({CREDIT.operation_id}) == Comparison((), ())
    assert found.without({Position(7)}) == found


def test_a_record_that_was_read_before_accuses_nobody_when_it_cannot_be_read_any_more() -> None:
    assert compare([UNREADABLE], [CREDIT], SINCE) == Comparison((), ())

"""The oracle of the simulation on small ledgers: what it demands, and where several are lawful."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from paywatch.domain.checkout import CheckoutSession, Terms
from simulation.book import Book, CreditKey
from simulation.oracle import Expected, Found, Money, expectations
from support import ACCOUNT, NOW, USDC, closing, make_session

DEADLINE = 1010  # a ledger
SESSION = make_session(
    1,
    expires_at=closing(DEADLINE),
    terms=Terms(100, closing(DEADLINE) + timedelta(seconds=10), text_for_id=True),
)


def money(ledger: int, amount: int = 100, **changes: object) -> Money:
    found = Money(
        operation_id=ledger << 32 | 4097,
        account=ACCOUNT,
        muxed_id=1,
        asset="native",
        amount=amount,
        tx_hash="00" * 32,
        memo=("none", b""),
        closed_at=closing(ledger),
    )
    return replace(found, **changes)  # type: ignore[arg-type] # fields of it


def expected(*paid: Money, in_order: bool = True, book: Book | None = None) -> Expected:
    book = book or Book()
    book.sessions[SESSION.id], book.opened_at[SESSION.id] = SESSION, 0
    return expectations(book, paid, (), in_order=in_order)[SESSION.id]


def found(status: str, how: str | None, *applied: Money, **held: Money) -> Found:
    """A session as it was found; what is held is given by its outcome."""
    received = sum(m.amount for m in applied)
    keys: dict[CreditKey, str] = {m.key: outcome for outcome, m in held.items()}
    return Found(status, received, how, frozenset(m.key for m in applied), keys)


def test_what_reaches_the_amount_in_time_must_be_paid() -> None:
    one = money(1005)
    assert list(expected(one).problems_of(found("paid", "exact", one))) == []
    assert list(expected(one).problems_of(found("expired", None, late=one)))
    assert list(expected(one).problems_of(found("paid", "over", one)))


def test_the_second_payment_is_a_duplicate_and_not_the_first() -> None:
    one, other = money(1005), money(1006)
    lawful = found("paid", "exact", one, duplicate=other)
    turned = found("paid", "exact", other, duplicate=one)
    assert list(expected(one, other).problems_of(lawful)) == []
    assert list(expected(one, other).problems_of(turned))
    assert list(expected(one, other, in_order=False).problems_of(turned)) == []
    both = found("paid", "over", one, other)
    assert list(expected(one, other, in_order=False).problems_of(both))


def test_what_is_behind_the_grace_is_late_or_a_duplicate_if_it_was_paid() -> None:
    paid, late = money(1005), money(DEADLINE + 3)
    assert list(expected(late).problems_of(found("expired", None, late=late))) == []
    assert list(expected(late).problems_of(found("expired", None, duplicate=late)))
    told = found("paid", "exact", paid, duplicate=late)
    assert list(expected(paid, late).problems_of(told)) == []
    wrong = found("paid", "exact", paid, late=late)
    assert list(expected(paid, late).problems_of(wrong))


def test_within_the_grace_it_is_paid_late() -> None:
    one = money(DEADLINE + 1)
    assert list(expected(one).problems_of(found("paid", "late", one))) == []
    assert list(expected(one).problems_of(found("paid", "exact", one)))


def test_money_in_another_asset_or_without_a_name_pays_nothing() -> None:
    dollars = money(1005, asset=str(USDC))
    assert list(expected(dollars).problems_of(found("expired", None, wrong_asset=dollars))) == []
    assert list(expected(dollars).problems_of(found("paid", "exact", dollars)))
    stranger = money(1005, muxed_id=2)
    assert list(expected(stranger).problems_of(found("expired", None))) == []
    assert list(expected(stranger).problems_of(found("expired", None, late=stranger)))


def test_a_memo_counts_only_without_a_muxed_address_and_digits_only_as_the_terms_say() -> None:
    digits = money(1005, muxed_id=None, memo=("text", b"1"))
    assert expected(digits).named == (digits,)
    assert expected(money(1005, muxed_id=2, memo=("id", b"\0" * 7 + b"\1"))).named == ()
    assert expected(money(1005, muxed_id=None, memo=("text", b"01"))).named == ()
    assert expected(money(1005, muxed_id=None, memo=("return", b"\1" * 32))).named == ()


def test_what_came_before_it_was_opened_may_have_been_read_before() -> None:
    early = money(1005)
    book = Book(sessions={SESSION.id: SESSION}, opened_at={SESSION.id: 1005})
    unmatched: list[CreditKey] = [early.key]
    assert expectations(book, [early], unmatched, in_order=True)[SESSION.id].named == ()
    assert expectations(book, [early], (), in_order=True)[SESSION.id].named == (early,)
    book.opened_at[SESSION.id] = 1004
    assert expectations(book, [early], unmatched, in_order=True)[SESSION.id].named == (early,)


def test_a_word_may_pay_what_the_payer_has_not_and_takes_the_money_from_elsewhere() -> None:
    other: CheckoutSession = make_session(2, expires_at=NOW + timedelta(hours=1))
    late = money(DEADLINE + 3)
    book = Book(sessions={other.id: other}, opened_at={other.id: 0})
    book.applied[late.key] = other.id
    mine = expected(late, book=book)
    assert list(mine.problems_of(found("expired", None))) == []
    both: dict[UUID, Expected] = expectations(book, [late], (), in_order=True)
    assert list(both[other.id].problems_of(found("paid", "exact", late))) == []


def test_only_what_an_announced_or_hidden_transaction_names_has_several_lawful_results() -> None:
    announced, mine = money(1005, tx_hash="11" * 32), money(1006)
    book = Book(announced={announced.tx_hash})
    assert not expected(announced, mine, book=book).strict
    assert expected(mine, book=book).strict
    assert not expected(mine, book=Book(hidden={1006})).strict
    assert expected(mine, book=Book(hidden={1005})).strict

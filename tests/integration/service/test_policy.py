"""What a merchant tolerates, in the settled rows; and what makes a paid session proven."""

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from paywatch.domain.ledger import Memo, MemoType
from paywatch.domain.policy import Policy
from paywatch.store import merchants
from support import ENDPOINT_ID, MERCHANT_ID, NOW, Shop, closing, make_credit


async def test_a_policy_is_kept_and_the_default_gives_nothing_away(
    engine: AsyncEngine, shop: Shop
) -> None:
    assert shop.merchant_id == MERCHANT_ID
    async with engine.begin() as conn:
        assert await merchants.read_policy(conn, MERCHANT_ID) == Policy()
        generous = Policy(50, timedelta(hours=24), text_for_id=False)
        await merchants.write_policy(conn, MERCHANT_ID, generous)
        assert await merchants.read_policy(conn, MERCHANT_ID) == generous
        assert await merchants.read_policy(conn, ENDPOINT_ID) is None


async def test_what_is_missing_within_the_tolerance_pays_and_says_under(shop: Shop) -> None:
    terms = Policy(tolerance_bps=100).terms(100, NOW + timedelta(minutes=30))
    await shop.add_session(terms=terms)
    await shop.settle(make_credit(99))
    assert await shop.session() == ("paid", 99)
    assert await shop.rows("SELECT paid_how FROM checkout_sessions") == [("under",)]
    [(payload,)] = await shop.rows("SELECT payload FROM events")
    assert b'"paid_how":"under"' in payload


async def test_a_payment_within_the_grace_pays_an_expired_session_and_says_late(
    shop: Shop,
) -> None:
    deadline = closing(1005)
    terms = Policy(late_grace=timedelta(seconds=10)).terms(100, deadline)
    await shop.add_session(expires_at=deadline, terms=terms)
    late, too_late = make_credit(60, ledger=1007), make_credit(60, ledger=1008)
    await shop.settle(late, too_late)
    assert await shop.session() == ("partially_paid", 60)
    await shop.settle(make_credit(40, ledger=1006))
    assert await shop.session() == ("paid", 100)
    assert await shop.rows("SELECT paid_how, paid_at > expires_at FROM checkout_sessions") == [
        ("late", True)
    ]
    outcomes = await shop.rows("SELECT outcome FROM credits ORDER BY operation_id")
    assert outcomes == [("applied",), ("applied",), ("late",)]


async def test_the_digits_of_an_id_as_text_pay_where_the_terms_say_so(shop: Shop) -> None:
    terms = Policy(text_for_id=False).terms(100, NOW + timedelta(minutes=30))
    await shop.add_session(1)
    await shop.add_session(2, terms=terms)
    as_text = [Memo(MemoType.TEXT, digit) for digit in (b"1", b"2")]
    await shop.settle(*(make_credit(ledger=1001 + n, memo=memo) for n, memo in enumerate(as_text)))
    assert await shop.session(1) == ("paid", 100)
    assert await shop.session(2) == ("pending", 0)


async def test_two_sessions_over_one_text_the_very_memo_wins(shop: Shop) -> None:
    await shop.add_session(7)
    await shop.add_session(8, memo=Memo(MemoType.TEXT, b"7"))
    await shop.settle(make_credit(memo=Memo(MemoType.TEXT, b"7")))
    assert await shop.session(7) == ("pending", 0)
    assert await shop.session(8) == ("paid", 100)


async def test_the_missing_payment_of_a_paid_session_is_its_proof_whoever_reads_it(
    shop: Shop,
) -> None:
    """Held as a duplicate, it could never be proven again."""
    await shop.add_session()
    await shop.settle(make_credit(100))
    await shop.execute("DELETE FROM credits")
    await shop.execute("DELETE FROM payments")
    first, second = make_credit(60, ledger=1001), make_credit(40, ledger=1002)
    for credit in (first, second, make_credit(100, ledger=1003)):
        await shop.settle(credit)
    assert await shop.session() == ("paid", 100)
    outcomes = await shop.rows("SELECT outcome FROM credits ORDER BY operation_id")
    assert outcomes == [("applied",), ("applied",), ("duplicate",)]
    assert await shop.rows("SELECT type, count(*) FROM events GROUP BY type ORDER BY type") == [
        ("checkout.session.paid", 1),
        ("payment.unapplied", 1),  # the duplicate
    ]

"""A merchant's word on held credits, on a real database: once, whole, beside everything else."""

import asyncio
from collections.abc import AsyncIterator, Container, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from paywatch.domain.announcement import Trace, TxState
from paywatch.domain.ledger import Credit, Memo
from paywatch.domain.policy import Policy
from paywatch.domain.settlement import Outcome
from paywatch.errors import InvalidInput, NotFound
from paywatch.service.held import HeldCredits
from paywatch.service.recover import Recovery
from paywatch.service.settle import Order, Settler
from paywatch.store.engine import create_engine
from support import (
    ACCOUNT,
    NOW,
    PAYER,
    USDC,
    Shop,
    address,
    closing,
    make_batch,
    make_credit,
)
from support.pages import Pages

NAMELESS = make_credit(ledger=1001, memo=Memo.none())
STATE = "SELECT outcome, held_as, session_id, resolved_at, returned_by_tx FROM credits"
PAID_EVENTS = "SELECT count(*) FROM events WHERE type = 'checkout.session.paid'"
TABLES = ("credits", "payments", "checkout_sessions", "events", "session_transitions")


@dataclass
class Ledger:
    """Knows the credits of these transactions, by their hashes; all others are unknown."""

    txs: dict[str, list[Credit]] = field(default_factory=dict)
    state: TxState = TxState.SUCCEEDED

    async def trace(self, tx_hash: str, watched: Container[str]) -> Trace:
        if tx_hash not in self.txs:
            return Trace(TxState.UNKNOWN, closing(2000))
        paid = [credit for credit in self.txs[tx_hash] if credit.account in watched]
        records = make_batch(paid).records if paid else ()
        return Trace(self.state, closing(2000), 1500, closing(1500), records)

    def refund(self, *amounts: int, **changes: Any) -> str:
        """Put a transaction that pays these amounts back on the ledger; gives its hash."""
        back: dict[str, Any] = {
            "account": PAYER,
            "payer": ACCOUNT,
            "ledger": 1500,
            "tx": 1 + len(self.txs),
        }
        paid = [
            make_credit(amount, op=n, **(back | changes)) for n, amount in enumerate(amounts, 1)
        ]
        self.txs[paid[0].tx_hash] = paid
        return paid[0].tx_hash


@dataclass
class Desk:
    """Where a merchant speaks."""

    shop: Shop
    ledger: Ledger = field(default_factory=Ledger)

    @property
    def held(self) -> HeldCredits:
        return self.on(self.shop.engine)

    def on(self, engine: AsyncEngine) -> HeldCredits:
        return HeldCredits(engine, self.ledger, lambda: NOW, Random(1))

    async def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        return {name: await self.shop.rows(f"SELECT * FROM {name} ORDER BY 1") for name in TABLES}


@pytest.fixture
def desk(shop: Shop) -> Desk:
    return Desk(shop)


async def held_as(shop: Shop, reason: Outcome) -> Credit:
    """A credit of 100 that is held for this reason; another than session 1 is concerned."""
    credit = make_credit(ledger=1002, memo=Memo.of_id(9))
    if reason is Outcome.UNMATCHED:
        credit = NAMELESS
    elif reason is Outcome.WRONG_ASSET:
        await shop.add_session(9, asset=USDC)
    elif reason is Outcome.LATE:
        await shop.add_session(9, expires_at=closing(1001))
    else:
        await shop.add_session(9)
    if reason is Outcome.DUPLICATE:
        await shop.settle(make_credit(ledger=1001, memo=Memo.of_id(9)))
    if reason is Outcome.CANCELED:
        await shop.execute("UPDATE checkout_sessions SET status = 'canceled' WHERE muxed_id = 9")
        await shop.execute(
            "INSERT INTO session_transitions (session_id, before, after, cause, by, recorded_at)"
            " SELECT id, 'pending', status, 'canceled', 'merchant', updated_at"
            " FROM checkout_sessions WHERE muxed_id = 9"
        )
    settled = await shop.settle(credit)
    assert [outcome for _, outcome, _ in settled.outcomes] == [reason]
    return credit


async def test_a_word_that_completes_late_money_does_not_call_it_in_time(
    shop: Shop, desk: Desk
) -> None:
    """As with credits that are read out of order: the ledger says what completed it."""
    deadline = closing(1005)
    terms = Policy(late_grace=timedelta(hours=1)).terms(100, deadline)
    session = await shop.add_session(1, expires_at=deadline, terms=terms)
    early = make_credit(60, ledger=1002, memo=Memo.none())
    late = make_credit(40, ledger=1010)
    await shop.settle(early)
    await shop.settle(late)
    await desk.held.apply(early.key, session.id)
    assert await shop.rows("SELECT paid_how, paid_at FROM checkout_sessions") == [
        ("late", late.closed_at)
    ]
    [(payload,)] = await shop.rows(
        "SELECT payload FROM events WHERE type = 'checkout.session.paid'"
    )
    assert late.tx_hash.encode() in payload


REASONS = [reason for reason in Outcome if reason not in {Outcome.APPLIED, Outcome.RETURNED}]


@pytest.mark.parametrize("reason", REASONS)
async def test_a_held_credit_is_applied_as_settling_would(
    shop: Shop, desk: Desk, reason: Outcome
) -> None:
    session = await shop.add_session(1)
    credit = await held_as(shop, reason)
    view = await desk.held.apply(credit.key, session.id)

    assert (view.state.outcome, view.state.held_as) == (Outcome.APPLIED, reason)
    assert view.session is not None
    assert view.session.id == session.id
    assert await shop.session(1) == ("paid", 100)
    assert await shop.rows(
        "SELECT paid_how, paid_at FROM checkout_sessions WHERE muxed_id = 1"
    ) == [("exact", credit.closed_at)]
    assert await shop.rows(
        "SELECT ledger, payer FROM payments WHERE tx_hash = :h", h=bytes.fromhex(credit.tx_hash)
    ) == [(credit.operation_id.ledger, credit.payer)]
    assert await shop.rows(
        "SELECT before, after, cause, operation_id, by FROM session_transitions"
        " WHERE session_id = :id",
        id=session.id,
    ) == [("pending", "paid", "credited_in_full", credit.operation_id, "merchant")]
    assert await shop.rows(
        "SELECT type FROM events JOIN deliveries ON event_id = id WHERE subject = :id",
        id=session.id,
    ) == [("checkout.session.paid",)]


async def test_the_same_word_again_changes_nothing(shop: Shop, desk: Desk) -> None:
    session = await shop.add_session()
    await shop.settle(NAMELESS)
    first = await desk.held.apply(NAMELESS.key, session.id)
    before = await desk.rows()
    assert await desk.held.apply(NAMELESS.key, session.id) == first
    assert await desk.rows() == before


async def test_words_add_up_and_only_the_last_tells(shop: Shop, desk: Desk) -> None:
    session = await shop.add_session()
    parts = [make_credit(60, ledger=1001 + n, memo=Memo.none()) for n in range(2)]
    await shop.settle(*parts)
    await desk.held.apply(parts[1].key, session.id)
    assert await shop.session() == ("partially_paid", 60)
    assert await shop.rows(PAID_EVENTS) == [(0,)]
    await desk.held.apply(parts[0].key, session.id)
    assert await shop.session() == ("paid", 120)
    assert await shop.rows(PAID_EVENTS) == [(1,)]


async def test_an_expired_session_is_paid_late_by_the_merchants_word(
    shop: Shop, desk: Desk
) -> None:
    session = await shop.add_session(expires_at=closing(1003))
    late = make_credit(ledger=1004)
    await shop.settle(late)
    await shop.execute("UPDATE cursors SET read_through_at = :at", at=closing(1100))
    assert await recovery(shop, shop.engine).expire_overdue() == 1
    await desk.held.apply(late.key, session.id)
    assert await shop.session() == ("paid", 100)
    assert await shop.rows("SELECT paid_how FROM checkout_sessions") == [("late",)]
    assert await shop.rows("SELECT type FROM events ORDER BY type") == [
        ("checkout.session.expired",),
        ("checkout.session.paid",),
        ("payment.unapplied",),
    ]


async def test_the_second_operation_of_a_payment_shares_its_row(shop: Shop, desk: Desk) -> None:
    await shop.add_session(1)
    other = await shop.add_session(2)
    second = make_credit(100, op=2)
    await shop.settle(make_credit(100), second)
    await desk.held.apply(second.key, other.id)
    assert await shop.session(2) == ("paid", 100)
    assert await shop.rows("SELECT count(*) FROM payments") == [(1,)]


async def test_what_a_word_has_applied_is_known_when_it_is_read_again(
    shop: Shop, desk: Desk
) -> None:
    session = await shop.add_session()
    await shop.settle(NAMELESS)
    await desk.held.apply(NAMELESS.key, session.id)
    before = await desk.rows()
    assert (await shop.settle(NAMELESS)).outcomes == ()
    assert (await recovery(shop, shop.engine).run_once()).healthy
    assert await desk.rows() == before


async def test_a_word_that_cannot_be_followed_changes_nothing_and_says_why(
    shop: Shop, desk: Desk
) -> None:
    other = Shop(
        shop.engine, account=address("other shop"), merchant_id=uuid4(), endpoint_id=uuid4()
    )
    elsewhere = await (await other.open()).add_session(2)
    dollars = await shop.add_session(3, asset=USDC)
    paid = await shop.add_session(4)
    open_one = await shop.add_session(5)
    applied = make_credit(ledger=1002, memo=Memo.of_id(4))
    await shop.settle(applied, NAMELESS)
    before = await desk.rows()
    unknown = uuid4()
    for key, session_id, why in (
        (NAMELESS.key, elsewhere.id, f"session: is on {other.account}"),
        (NAMELESS.key, dollars.id, "session: asks for USDC"),
        (NAMELESS.key, paid.id, "session: is paid"),
        (applied.key, open_one.id, f"credit: {applied.name} is applied to session {paid.id}"),
    ):
        with pytest.raises(InvalidInput, match=why):
            await desk.held.apply(key, session_id)
    with pytest.raises(NotFound, match="no credit 77:1"):
        await desk.held.apply((77, 1), open_one.id)
    with pytest.raises(NotFound, match=f"no session {unknown}"):
        await desk.held.apply(NAMELESS.key, unknown)
    assert await desk.rows() == before


async def test_a_credit_of_an_earlier_history_is_not_spoken_of(shop: Shop, desk: Desk) -> None:
    """Its money is gone with the network; at its position there may be other money now."""
    session = await shop.add_session()
    await shop.settle(NAMELESS)
    await shop.execute("INSERT INTO histories VALUES (1, 0, :now)", now=NOW)
    await shop.execute("UPDATE cursors SET history = 1")
    with pytest.raises(NotFound):
        await desk.held.apply(NAMELESS.key, session.id)
    assert await desk.held.read_list(None, None, resolved=True, limit=10) == []


def recovery(shop: Shop, engine: AsyncEngine) -> Recovery:
    settler = Settler(engine, shop.metrics, lambda: NOW, Random(2))
    return Recovery(engine, settler, Pages(), lambda: NOW, Random(2), shop.metrics)


@pytest.fixture
async def engines(database_url: str) -> AsyncIterator[list[AsyncEngine]]:
    """Two pools, as two processes have them."""
    made = [create_engine(database_url) for _ in range(2)]
    yield made
    for engine in made:
        await engine.dispose()


async def at_once(*works: Coroutine[Any, Any, object]) -> list[Any]:
    return list(await asyncio.gather(*works, return_exceptions=True))


async def test_race_one_credit_applied_to_two_sessions_pays_one(
    shop: Shop, desk: Desk, engines: list[AsyncEngine]
) -> None:
    sessions = [await shop.add_session(n) for n in range(1, 21)]
    credits_ = [make_credit(tx=n, memo=Memo.none()) for n in range(1, 11)]
    await shop.settle(*credits_)
    for n, credit in enumerate(credits_):
        ended = await at_once(
            desk.on(engines[0]).apply(credit.key, sessions[2 * n].id),
            desk.on(engines[1]).apply(credit.key, sessions[2 * n + 1].id),
        )
        assert sorted(isinstance(one, InvalidInput) for one in ended) == [False, True], ended
    paid = "SELECT count(*) FROM checkout_sessions WHERE status = 'paid'"
    assert await shop.rows(paid) == await shop.rows(PAID_EVENTS) == [(10,)]


async def test_race_a_word_beside_a_payment_for_the_same_session_tells_once(
    shop: Shop, desk: Desk, engines: list[AsyncEngine]
) -> None:
    for n in range(1, 11):
        session = await shop.add_session(n)
        nameless = make_credit(ledger=1100 + n, memo=Memo.none())
        await shop.settle(nameless)
        live = Order(make_batch([make_credit(ledger=1200 + n, memo=Memo.of_id(n))]), "live")
        settler = Settler(engines[1], shop.metrics, lambda: NOW, Random(n))
        word, _ = await at_once(
            desk.on(engines[0]).apply(nameless.key, session.id),
            settler.settle(live),
        )
        came_first = not isinstance(word, InvalidInput)
        outcomes = await shop.rows(
            "SELECT outcome FROM credits WHERE operation_id > :after ORDER BY operation_id DESC"
            " LIMIT 1",
            after=nameless.operation_id,
        )
        assert outcomes == [("duplicate" if came_first else "applied",)]
        assert await shop.session(n) == ("paid", 100)
    assert await shop.rows(PAID_EVENTS) == [(10,)]


async def test_race_a_word_beside_expiry_and_recovery_ends_paid(
    shop: Shop, desk: Desk, engines: list[AsyncEngine]
) -> None:
    for n in range(1, 11):
        session = await shop.add_session(n, expires_at=closing(1003))
        nameless = make_credit(ledger=1100 + n, memo=Memo.none())
        await shop.settle(nameless)
        await shop.execute("UPDATE cursors SET read_through_at = :at", at=closing(1100 + n))
        _, report = await at_once(
            desk.on(engines[0]).apply(nameless.key, session.id),
            recovery(shop, engines[1]).run_once(),
        )
        assert await shop.session(n) == ("paid", 100)
        assert not isinstance(report, BaseException), report
    assert await shop.rows(PAID_EVENTS) == [(10,)]


async def test_a_held_credit_is_returned_by_a_transaction_on_the_ledger(
    shop: Shop, desk: Desk
) -> None:
    session = await shop.add_session()
    wrong = make_credit(asset=USDC)
    await shop.settle(wrong)
    refund = desk.ledger.refund(100, asset=USDC)
    view = await desk.held.mark_returned(wrong.key, refund)
    assert view.state.returned_by_tx == refund
    assert await shop.rows(STATE) == [
        ("returned", "wrong_asset", session.id, NOW, bytes.fromhex(refund))
    ]
    before = await desk.rows()
    assert await desk.held.mark_returned(wrong.key, refund) == view
    assert await desk.rows() == before
    with pytest.raises(InvalidInput, match=f"was returned by {refund}: it is not held"):
        await desk.held.mark_returned(wrong.key, desk.ledger.refund(100, asset=USDC))
    with pytest.raises(InvalidInput, match="was returned by"):
        await desk.held.apply(wrong.key, session.id)
    assert (await recovery(shop, shop.engine).run_once()).healthy


async def test_a_refund_by_its_inner_hash_is_the_same_refund(shop: Shop, desk: Desk) -> None:
    """Else one refund, named by both of its hashes, would return two credits."""
    credits_ = [make_credit(tx=n, memo=Memo.none()) for n in (1, 2)]
    await shop.settle(*credits_)
    outer = desk.ledger.refund(100)
    desk.ledger.txs["ab" * 32] = desk.ledger.txs[outer]
    await desk.held.mark_returned(credits_[0].key, "ab" * 32)
    assert (await desk.held.read(credits_[0].key)).state.returned_by_tx == outer
    with pytest.raises(InvalidInput, match=r"has 0\.0000000 left to return"):
        await desk.held.mark_returned(credits_[1].key, outer)


async def test_one_refund_returns_as_many_credits_as_it_covers(shop: Shop, desk: Desk) -> None:
    credits_ = [make_credit(100, tx=n, memo=Memo.none()) for n in range(1, 4)]
    other_payer = make_credit(100, tx=9, memo=Memo.none(), payer=address("another payer"))
    await shop.settle(*credits_, other_payer)
    refund = desk.ledger.refund(150, 60)
    desk.ledger.txs[refund].append(
        make_credit(
            100, ledger=1500, tx=1, op=3, account=other_payer.payer, payer=ACCOUNT,
        )
    )  # fmt: skip
    await desk.held.mark_returned(credits_[0].key, refund)
    await desk.held.mark_returned(other_payer.key, refund)
    await desk.held.mark_returned(credits_[1].key, refund)
    with pytest.raises(InvalidInput, match=r"tx: has 0\.0000010 left to return"):
        await desk.held.mark_returned(credits_[2].key, refund)


async def test_race_two_returns_by_one_refund_that_covers_one(
    shop: Shop, desk: Desk, engines: list[AsyncEngine]
) -> None:
    for n in range(10):
        pair = [make_credit(tx=2 * n + m, memo=Memo.none()) for m in (1, 2)]
        await shop.settle(*pair)
        refund = desk.ledger.refund(199)
        ended = await at_once(
            desk.on(engines[0]).mark_returned(pair[0].key, refund),
            desk.on(engines[1]).mark_returned(pair[1].key, refund),
        )
        assert sorted(isinstance(one, InvalidInput) for one in ended) == [False, True], ended
    assert await shop.rows("SELECT count(*) FROM credits WHERE outcome = 'returned'") == [(10,)]


async def test_only_what_is_held_is_returned(shop: Shop, desk: Desk) -> None:
    session = await shop.add_session()
    await shop.settle(make_credit())
    before = await desk.rows()
    with pytest.raises(InvalidInput, match=f"is applied to session {session.id}: it is not held"):
        await desk.held.mark_returned(make_credit().key, desk.ledger.refund(100))
    with pytest.raises(NotFound):
        await desk.held.mark_returned((77, 1), desk.ledger.refund(100))
    assert await desk.rows() == before


async def test_held_credits_are_listed_the_newest_first_and_resolved_ones_if_wanted(
    shop: Shop, desk: Desk
) -> None:
    other = Shop(
        shop.engine, account=address("other shop"), merchant_id=uuid4(), endpoint_id=uuid4()
    )
    await other.open()
    session = await shop.add_session()
    one, two = (make_credit(tx=n, memo=Memo.none()) for n in (1, 2))
    wrong = make_credit(tx=3, asset=USDC)
    elsewhere = make_credit(tx=4, memo=Memo.none(), account=other.account)
    await shop.settle(one, two, wrong, elsewhere, make_credit(40, tx=5))
    await desk.held.apply(two.key, session.id)

    async def listed(
        account: str | None = None,
        outcome: Outcome | None = None,
        *,
        resolved: bool = False,
        limit: int = 10,
    ) -> list[Credit]:
        found = await desk.held.read_list(account, outcome, resolved=resolved, limit=limit)
        return [state.credit for state in found]

    assert await listed() == [elsewhere, wrong, one]
    assert await listed(limit=2) == [elsewhere, wrong]
    assert await listed(ACCOUNT) == [wrong, one]
    assert await listed(outcome=Outcome.WRONG_ASSET) == [wrong]
    assert await listed(resolved=True) == [elsewhere, wrong, two, one]
    assert await listed(ACCOUNT, Outcome.UNMATCHED, resolved=True) == [two, one]
    assert await listed(outcome=Outcome.APPLIED, resolved=True) == [two]


async def test_a_view_has_the_session_and_how_far_the_merchant_was_told(
    shop: Shop, desk: Desk
) -> None:
    session = await shop.add_session()
    wrong = make_credit(asset=USDC)
    await shop.settle(wrong)
    view = await desk.held.read(wrong.key)
    assert view.state.credit == wrong
    assert view.session is not None
    assert view.session.id == session.id
    assert view.event is not None
    assert (view.event.state, view.event.attempts_made) == ("pending", 0)

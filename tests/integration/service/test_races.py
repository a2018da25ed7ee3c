"""Races by name: what happens at the same moment happens once, and the rows say so.

Most are forced: somebody holds the row that both want until both wait for it (`collide`). Which of
them is first then is PostgreSQL's to say; the test accepts either, and nothing between.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from random import Random
from typing import Final
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from paywatch.domain.announcement import Reception
from paywatch.domain.delivery import Answer
from paywatch.domain.ledger import Memo, Position
from paywatch.errors import CursorMoved, InvalidInput
from paywatch.service.dispatch import Limits
from paywatch.service.settle import Order
from paywatch.store import cursors, outbox
from paywatch.store.retry import in_transaction
from support import NOW, START, Shop, closing, make_batch, make_credit
from support.pages import TIP
from support.races import Arena, at_once, cancel, on_the_ledger, processes

CREDITS: Final = "SELECT FROM credits FOR UPDATE"
OUTCOMES: Final = "SELECT outcome, count(*) FROM credits GROUP BY 1 ORDER BY 1"
TOLD: Final = "SELECT type, count(*) FROM events GROUP BY 1 ORDER BY 1"
LOG: Final = "SELECT before, after, cause FROM session_transitions ORDER BY id"
CAUSES: Final = "SELECT cause, count(*) FROM session_transitions GROUP BY 1 ORDER BY 1"
ROUNDS: Final = range(1, 7)


@pytest.fixture
async def arena(shop: Shop, database_url: str) -> AsyncIterator[Arena]:
    async with processes(database_url, 4) as pools:
        yield Arena(shop, database_url, pools)


async def test_two_payments_for_one_session_that_wait_for_its_lock(arena: Arena) -> None:
    await arena.shop.add_session()
    credits_ = [make_credit(ledger=1001 + n) for n in range(4)]
    settled = await arena.collide(*[arena.settling(credit) for credit in credits_])
    assert sorted(one.outcomes[0][1] for one in settled) == ["applied", *["duplicate"] * 3]
    assert await arena.shop.session() == ("paid", 100)
    assert await arena.shop.rows(OUTCOMES) == [("applied", 1), ("duplicate", 3)]
    assert await arena.shop.rows(TOLD) == [("checkout.session.paid", 1), ("payment.unapplied", 3)]
    assert await arena.shop.rows("SELECT count(*) FROM payments") == [(1,)]


async def test_two_parts_for_one_session_that_wait_for_its_lock_add_up(arena: Arena) -> None:
    await arena.shop.add_session()
    parts = [make_credit(30, ledger=1001 + n) for n in range(4)]
    await arena.collide(*[arena.settling(part) for part in parts])
    assert await arena.shop.session() == ("paid", 120)
    assert await arena.shop.rows(TOLD) == [("checkout.session.paid", 1)]


async def test_one_operation_from_four_readers_that_wait_for_its_session(arena: Arena) -> None:
    await arena.shop.add_session()
    settled = await arena.collide(*[arena.settling(make_credit(60)) for _ in range(4)])
    assert sorted(len(one.outcomes) for one in settled) == [0, 0, 0, 1]
    assert await arena.shop.session() == ("partially_paid", 60)


async def test_one_nameless_operation_from_four_readers_is_told_of_once(arena: Arena) -> None:
    """No session's lock is there to wait for: its own key decides."""
    for n in ROUNDS:
        nameless = make_credit(ledger=1000 + n, memo=Memo.none())
        settled = await at_once(*[arena.settling(nameless) for _ in range(4)])
        assert sorted(len(one.outcomes) for one in settled) == [0, 0, 0, 1]
    assert await arena.shop.rows(TOLD) == [("payment.unapplied", len(ROUNDS))]


async def test_two_operations_of_one_transaction_from_two_readers_share_its_payment(
    arena: Arena,
) -> None:
    await arena.shop.add_session(1)
    await arena.shop.add_session(2)
    first, second = make_credit(op=1), make_credit(op=2, muxed_id=2)
    both = "SELECT FROM checkout_sessions FOR UPDATE"
    await arena.collide(arena.settling(first), arena.settling(second), on=both)
    assert await arena.shop.session(1) == await arena.shop.session(2) == ("paid", 100)
    assert await arena.shop.rows("SELECT count(*) FROM payments") == [(1,)]


@pytest.mark.parametrize("seen", [True, False])
async def test_the_same_hash_is_announced_twice_at_the_same_moment(
    arena: Arena, seen: bool
) -> None:
    session, paid = await arena.shop.add_session(), make_credit()
    if seen:
        arena.pages.traces = on_the_ledger(paid)
    announced = await arena.collide(
        *[arena.announcements().announce(session.id, paid.tx_hash) for _ in range(4)]
    )
    log = [("pending", "processing", "announced")]
    assert sum(one.settled for one in announced) == (1 if seen else 0)
    assert Counter(one.reception for one in announced)[Reception.TAKEN] == 1
    await arena.settling(paid)
    assert await arena.shop.session() == ("paid", 100)
    assert await arena.shop.rows(LOG) == [*log, ("processing", "paid", "credited_in_full")]


async def test_two_hashes_are_announced_for_one_session_at_the_same_moment(arena: Arena) -> None:
    """Whichever is waited for in the end: each was one change, and what pays it pays it."""
    session = await arena.shop.add_session()
    hashes = ["aa" * 32, "bb" * 32]
    await arena.collide(*[arena.announcements().announce(session.id, one) for one in hashes])
    waiting = ("processing", "processing", "announced")
    assert await arena.shop.rows(LOG) == [("pending", "processing", "announced"), waiting]
    await arena.settling(make_credit())
    assert await arena.shop.session() == ("paid", 100)


async def stuck(arena: Arena, tx_hash: str) -> None:
    """As a crash leaves it: announced long ago, and never looked up."""
    session = await arena.shop.add_session()
    long_ago = NOW - timedelta(hours=1)
    early = arena.announcements()
    early = replace(early, tracer=replace(early.tracer, clock=lambda: long_ago))
    await early.announce(session.id, tx_hash)
    assert await arena.shop.session() == ("processing", 0)


async def test_a_session_that_a_crash_left_in_processing_beside_two_recoveries_and_its_payment(
    arena: Arena,
) -> None:
    paid = make_credit()
    await stuck(arena, paid.tx_hash)
    arena.pages.traces = on_the_ledger(paid)
    await arena.collide(
        arena.recovery().run_once(),
        arena.recovery().run_once(),
        arena.settling(paid),
    )
    assert await arena.shop.session() == ("paid", 100)
    assert await arena.shop.rows(OUTCOMES) == [("applied", 1)]
    assert (await arena.shop.rows(LOG))[1:] == [("processing", "paid", "credited_in_full")]


async def test_what_is_given_up_as_untraced_while_its_payment_arrives_is_paid(
    arena: Arena,
) -> None:
    await stuck(arena, "ab" * 32)
    given_up, _ = await arena.collide(arena.recovery().run_once(), arena.settling(make_credit()))
    assert await arena.shop.session() == ("paid", 100)
    log = await arena.shop.rows(LOG)
    back = [("processing", "pending", "untraced"), ("pending", "paid", "credited_in_full")]
    assert log[1:] == (back if given_up.returned else [("processing", "paid", "credited_in_full")])


async def test_cancel_against_payment(arena: Arena) -> None:
    for n in ROUNDS:
        await arena.shop.add_session(n)
        credit = make_credit(ledger=1000 + n, memo=Memo.of_id(n))
        settled, canceled = await arena.collide(
            arena.settling(credit),
            cancel(arena.pool(), n),
            on=f"SELECT FROM checkout_sessions WHERE muxed_id = {n} FOR UPDATE",
        )
        [(_, outcome, _)] = settled.outcomes
        assert outcome == ("canceled" if canceled else "applied")
        assert await arena.shop.session(n) == (("canceled", 0) if canceled else ("paid", 100))


async def test_expiry_against_a_payment_in_time_that_the_stream_brings(arena: Arena) -> None:
    """The batch that moves the clock past the deadline brings the payment with it."""
    claim = await arena.shop.claim()
    for n in ROUNDS:
        ledger = 1000 + 10 * n
        await arena.shop.add_session(n, expires_at=closing(ledger))
        paid = make_credit(ledger=ledger, memo=Memo.of_id(n))
        batch = make_batch([paid], claim.position, Position.after_ledger(ledger + 5))
        order = Order(batch, claim.stream, claim)
        ended = await at_once(
            arena.settler().settle(order),
            *[arena.recovery().expire_overdue() for _ in range(3)],
        )
        assert ended[1:] == [0, 0, 0]
        assert await arena.shop.session(n) == ("paid", 100)
        claim = replace(claim, position=batch.upto)
    assert await arena.shop.rows(CAUSES) == [("credited_in_full", len(ROUNDS))]


async def test_expiry_against_a_payment_in_time_that_is_found_later(arena: Arena) -> None:
    """Horizon had left it out: it may expire first, and is paid all the same, as in time."""
    await arena.shop.add_session(expires_at=closing(1005))
    await arena.shop.execute("UPDATE cursors SET read_through_at = :at", at=closing(1100))
    expired, _ = await arena.collide(
        arena.recovery().expire_overdue(), arena.settling(make_credit(ledger=1004))
    )
    assert await arena.shop.session() == ("paid", 100)
    assert await arena.shop.rows("SELECT paid_how FROM checkout_sessions") == [("exact",)]
    ways = [("expired", "deadline_passed")] * expired + [("paid", "credited_in_full")]
    assert [row[1:] for row in await arena.shop.rows(LOG)] == ways


async def test_expiry_against_a_late_payment(arena: Arena) -> None:
    await arena.shop.add_session(expires_at=closing(1005))
    await arena.shop.execute("UPDATE cursors SET read_through_at = :at", at=closing(1100))
    await arena.collide(
        arena.recovery().expire_overdue(),
        arena.recovery().expire_overdue(),
        arena.settling(make_credit(ledger=1006)),
    )
    assert await arena.shop.session() == ("expired", 0)
    assert await arena.shop.rows(OUTCOMES) == [("late", 1)]
    assert await arena.shop.rows(TOLD) == [
        ("checkout.session.expired", 1), ("payment.unapplied", 1),
    ]  # fmt: skip


async def test_a_word_against_the_payment_that_completes_the_session(arena: Arena) -> None:
    session = await arena.shop.add_session()
    nameless = make_credit(40, ledger=1001, memo=Memo.none())
    await arena.settling(nameless, make_credit(40, ledger=1002))
    word, _ = await arena.collide(
        arena.words().apply(nameless.key, session.id), arena.settling(make_credit(60, ledger=1003))
    )
    refused = isinstance(word, InvalidInput)
    assert await arena.shop.session() == ("paid", 100 if refused else 140)
    assert await arena.shop.rows(OUTCOMES) == (
        [("applied", 2), ("unmatched", 1)] if refused else [("applied", 3)]
    )
    assert dict(await arena.shop.rows(TOLD)) == {"checkout.session.paid": 1, "payment.unapplied": 1}


async def test_a_credit_is_applied_and_returned_at_the_same_moment(arena: Arena) -> None:
    session, nameless = await arena.shop.add_session(), make_credit(memo=Memo.none())
    await arena.settling(nameless)
    back = make_credit(ledger=1500, account=nameless.payer, payer=nameless.account)
    arena.pages.traces = on_the_ledger(back)
    ended = await arena.collide(
        arena.words().apply(nameless.key, session.id),
        arena.words().mark_returned(nameless.key, back.tx_hash),
        on=CREDITS,
    )
    refusals = [one for one in ended if isinstance(one, BaseException)]
    assert [type(one) for one in refusals] == [InvalidInput]
    returned = refusals == [ended[0]]
    assert await arena.shop.session() == (("pending", 0) if returned else ("paid", 100))
    assert await arena.shop.rows(OUTCOMES) == [("returned" if returned else "applied", 1)]


async def test_two_recoveries_repair_everything_once(arena: Arena) -> None:
    """Overdue, unmarked, untold, and a dead dispatcher's lease: each is one row's worth."""
    shop = arena.shop
    for n in range(1, 13):
        await shop.add_session(n, expires_at=closing(1003) if n <= 4 else closing(1500))
    await arena.settling(
        *[make_credit(tx=n, memo=Memo.of_id(n)) for n in range(5, 9)],
        *[make_credit(tx=n, memo=Memo.none()) for n in range(13, 17)],
    )
    await shop.execute("DELETE FROM deliveries")
    await shop.execute("DELETE FROM events")  # neither the paid nor the held were told of
    await shop.execute("UPDATE cursors SET read_through_at = :at", at=closing(1100))
    reports = await at_once(*[arena.recovery().run_once() for _ in range(3)])
    repaired = [sum(getattr(one, name) for one in reports) for name in ("expired", "marked")]
    assert repaired == [4, 4], reports
    assert await shop.rows(TOLD) == [
        ("checkout.session.expired", 4), ("checkout.session.paid", 4), ("payment.unapplied", 4),
    ]  # fmt: skip
    assert await shop.rows("SELECT count(*) FROM deliveries") == [(12,)]
    assert await shop.rows(CAUSES) == [("credited_in_full", 4), ("deadline_passed", 4)]


async def test_backfill_and_the_live_stream_bring_the_same_operations(arena: Arena) -> None:
    shop, credits_ = arena.shop, [make_credit(1, ledger=1000 + n, tx=n) for n in range(1, 41)]
    await shop.add_session()
    arena.pages.credits, arena.pages.size = credits_, 5

    async def live() -> None:
        claim = await shop.claim()
        settler = arena.settler()
        while claim.position < TIP:
            batch = await arena.pages.page(shop.account, claim.position)
            await settler.settle(Order(batch, claim.stream, claim))
            claim = replace(claim, position=batch.upto)

    ended = await at_once(
        live(),
        arena.backfill().run_range(shop.account, START, TIP),
        arena.backfill().run_range(shop.account, Position.of(1010), TIP),
    )
    assert ended[0] is None
    found = [one.found for one in ended[1:]]
    assert sum(found) <= 40
    assert await shop.session() == ("partially_paid", 40)
    assert await shop.rows("SELECT stream, position FROM cursors") == [
        (f"live:{shop.account}", TIP)
    ]


async def test_a_stream_is_taken_over_while_its_last_leader_settles(arena: Arena) -> None:
    """Either it settled before, and the next one goes on behind; or it is fenced, and nothing."""
    await arena.shop.add_session()
    claim = await arena.shop.claim()
    batch = make_batch([make_credit()], claim.position)
    ended, taken = await arena.collide(
        arena.settler().settle(Order(batch, claim.stream, claim)),
        in_transaction(
            arena.pool(), lambda conn: cursors.claim(conn, claim.stream, NOW), rng=Random(1)
        ),
        on="SELECT FROM cursors FOR UPDATE",
    )
    fenced = isinstance(ended, CursorMoved)
    assert taken.position == (claim.position if fenced else batch.upto)
    assert await arena.shop.session() == (("pending", 0) if fenced else ("paid", 100))
    await arena.settler().settle(Order(replace(batch, after=taken.position), claim.stream, taken))
    assert await arena.shop.session() == ("paid", 100)
    assert await arena.shop.rows(OUTCOMES) == [("applied", 1)]


async def test_dispatchers_that_share_the_work_post_each_delivery_once(arena: Arena) -> None:
    await arena.seal_endpoint()
    await arena.settling(*[make_credit(tx=n, memo=Memo.none()) for n in range(1, 101)])
    posted: Counter[str] = Counter()

    async def post(_url: str, headers: Mapping[str, str], _body: bytes) -> Answer:
        posted[headers["webhook-id"]] += 1
        await asyncio.sleep(0)
        return Answer(status=200, excerpt=b"", duration_s=0.0)

    works = [arena.dispatcher(post, Limits(in_flight=8)) for _ in range(4)]
    done = 0
    while done < 100:
        rounds = await at_once(*[one.run_once() for one in works])
        assert {one.lost for one in rounds} == {0}
        done += sum(one.delivered for one in rounds)
    assert sorted(posted.values()) == [1] * 100


async def test_claims_of_the_same_instant_never_share_a_delivery(arena: Arena) -> None:
    """One that was claimed and committed after another claim had begun to look is not taken."""
    credits_ = [make_credit(tx=n, memo=Memo.none()) for n in range(1, 401)]
    await arena.settling(*credits_)
    claimed: list[outbox.DeliveryKey] = []

    async def claim(pool: AsyncEngine, number: int) -> None:
        engine, rng = pool.execution_options(isolation_level="READ COMMITTED"), Random(number)
        room, lease = outbox.Room(4, 1000), timedelta(minutes=1)
        while True:
            token = UUID(int=rng.getrandbits(128))
            found = await in_transaction(
                engine, partial(outbox.claim, room=room, token=token, now=NOW, lease=lease), rng=rng
            )
            if not found:
                return
            claimed.extend((one.event_id, one.endpoint_id) for one in found)

    await asyncio.gather(*[claim(arena.pool(), n) for n in range(12)])
    assert len(claimed) == len(set(claimed)) == len(credits_)
    async with arena.shop.engine.begin() as conn:
        over = NOW + timedelta(minutes=1)
        assert len(await outbox.release_dead_leases(conn, over)) == len(credits_)


async def test_what_a_dead_dispatcher_has_claimed_is_anybodys_after_a_minute(arena: Arena) -> None:
    await arena.seal_endpoint()
    await arena.settling(make_credit(memo=Memo.none()))

    async def post(_url: str, _headers: Mapping[str, str], _body: bytes) -> Answer:
        return Answer(status=200, excerpt=b"", duration_s=0.0)

    assert len(await arena.dispatcher(post)._claim()) == 1
    for seconds, delivered in ((59, 0), (61, 1)):
        now = NOW + timedelta(seconds=seconds)
        heir = replace(arena.dispatcher(post), clock=partial(max, now, NOW))
        assert (await heir.run_once()).delivered == delivered

"""Lesson 19: rows locked in the order of events deadlock; in the order of ids they do not.

Somebody holds the session with the lowest id. Whoever locks several sessions must then wait while
it holds none of the others. The idea is absurd's `test_lock_ordering.py`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Container
from random import Random
from typing import Final
from uuid import UUID

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from paywatch.domain.announcement import Announcement, Trace
from paywatch.domain.checkout import Cause
from paywatch.domain.ledger import History, Memo
from paywatch.domain.settlement import Outcome
from paywatch.service.held import HeldCredits
from paywatch.store import announcements, histories, network, outbox, recovery, sessions
from support import NOW, START, Shop, closing, make_credit
from support.locks import somebody_waits_for_a_lock

NUMBERS: Final = (5, 2, 4, 1, 3)  # as they lie in the table
CREDITS: Final = [make_credit(tx=n, memo=Memo.of_id(n)) for n in NUMBERS]
IDS: Final = [UUID(int=number) for number in NUMBERS]
LOWEST: Final = min(IDS)
ANNOUNCED: Final = Announcement("ab" * 32, NOW)
ENDINGS: Final = dict.fromkeys(IDS, (ANNOUNCED, Cause.UNTRACED))

Lock = Callable[[AsyncConnection], Awaitable[object]]
Care = Callable[[AsyncConnection], Awaitable[Collection[object]]]


async def everything_to_do(shop: Shop) -> None:
    """Five sessions that are processing, overdue, and have enough credits without being paid."""
    for number, id_ in zip(NUMBERS, IDS, strict=True):
        await shop.add_session(number, id=id_, expires_at=closing(1010))
    await shop.settle(*CREDITS)
    await shop.execute("DELETE FROM deliveries")
    await shop.execute("DELETE FROM events")
    for id_ in IDS:  # one by one, so that they lie in this order again
        await shop.execute(
            "UPDATE checkout_sessions SET status = 'processing', announced_at = :at,"
            " announced_tx_hash = decode(repeat('ab', 32), 'hex'),"
            " paid_at = NULL, paid_how = NULL WHERE id = :id",
            at=ANNOUNCED.announced_at,
            id=id_,
        )
    await shop.execute("UPDATE cursors SET read_through_at = :at", at=closing(1100))


LOCKS: Final[dict[str, Lock]] = {
    "settle": lambda conn: sessions.lock_named(conn, CREDITS),
    "mark": lambda conn: recovery.lock_unmarked(conn, NOW),
    "expire": recovery.lock_overdue,
    "end": lambda conn: announcements.end(conn, ENDINGS, "test", NOW),
}


@pytest.mark.breaks_invariants
@pytest.mark.parametrize("lock", LOCKS.values(), ids=LOCKS.keys())
async def test_lesson_19_sessions_are_locked_in_the_order_of_their_ids(
    shop: Shop, database_url: str, lock: Lock
) -> None:
    await everything_to_do(shop)
    with psycopg.connect(database_url) as holder, psycopg.connect(database_url) as prober:
        holder.execute("SELECT FROM checkout_sessions WHERE id = %s FOR UPDATE", [LOWEST])
        async with shop.engine.connect() as conn:
            await conn.begin()
            locking = asyncio.ensure_future(lock(conn))
            await somebody_waits_for_a_lock(prober)
            # Raises if one of the others is taken.
            free = prober.execute(
                "SELECT id FROM checkout_sessions WHERE id <> %s FOR UPDATE NOWAIT", [LOWEST]
            )
            assert len(free.fetchall()) == 4
            prober.rollback()
            holder.rollback()
            locked = await locking
            assert isinstance(locked, (list, dict))
            assert len(locked) == 5
            await conn.rollback()


async def test_a_word_locks_the_session_before_the_credit(shop: Shop, database_url: str) -> None:
    """As settling does, which writes a session's credits while it holds the session."""
    session = await shop.add_session()
    credit = make_credit(memo=Memo.none())
    await shop.settle(credit)
    words = HeldCredits(shop.engine, NoLedger(), lambda: NOW, Random(1))
    with psycopg.connect(database_url) as holder, psycopg.connect(database_url) as prober:
        holder.execute("SELECT FROM checkout_sessions FOR UPDATE")
        applying = asyncio.ensure_future(words.apply(credit.key, session.id))
        await somebody_waits_for_a_lock(prober)
        free = prober.execute("SELECT FROM credits FOR UPDATE NOWAIT")
        assert len(free.fetchall()) == 1
        prober.rollback()
        holder.rollback()
        assert (await applying).state.outcome is Outcome.APPLIED


class NoLedger:
    """Is not asked."""

    async def trace(self, tx_hash: str, watched: Container[str]) -> Trace:
        raise AssertionError(tx_hash, watched)


async def test_an_announcement_is_decided_under_the_lock_of_its_session(
    shop: Shop, database_url: str
) -> None:
    session = await shop.add_session()
    async with shop.engine.begin() as conn:
        assert await announcements.lock(conn, session.id) == (session, None)
        with (
            psycopg.connect(database_url) as prober,
            pytest.raises(psycopg.errors.LockNotAvailable),
        ):
            prober.execute("SELECT FROM checkout_sessions FOR UPDATE NOWAIT")


HISTORY: Final = History(1)
CHANGES: Final[dict[str, Lock]] = {
    "leave": lambda conn: network.leave(conn, NOW),
    "begin": lambda conn: histories.begin(conn, HISTORY, START, NOW),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
async def test_who_reads_for_the_accounts_changes_under_the_lock_of_the_streams_cursor(
    shop: Shop, database_url: str, change: Lock
) -> None:
    async with shop.engine.begin() as conn:
        await network.open_network(conn, NOW)
    with psycopg.connect(database_url) as holder, psycopg.connect(database_url) as prober:
        holder.execute("SELECT FROM cursors WHERE stream = 'live:network' FOR UPDATE")
        async with shop.engine.connect() as conn:
            changing = asyncio.ensure_future(change(conn))
            await somebody_waits_for_a_lock(prober)
            free = prober.execute("SELECT FROM accounts FOR UPDATE NOWAIT")
            assert len(free.fetchall()) == 1
            prober.rollback()
            holder.rollback()
            assert await changing
            await conn.rollback()


CARE: Final[dict[str, Care]] = {
    "bury": lambda conn: outbox.bury(conn, NOW),
    "release": lambda conn: outbox.release_dead_leases(conn, NOW),
}


@pytest.mark.parametrize("care", CARE.values(), ids=CARE.keys())
async def test_the_care_of_deliveries_waits_for_nobody(
    shop: Shop, database_url: str, care: Care
) -> None:
    """Many at once, in any order: a dispatcher that records some of them would wait in a circle."""
    await shop.settle(*[make_credit(tx=n, memo=Memo.none()) for n in range(1, 6)])
    await shop.execute(
        "UPDATE deliveries SET lease_token = gen_random_uuid(), lease_until = :now", now=NOW
    )
    await shop.execute("UPDATE endpoints SET disabled_at = :now, disabled_reason = 'x'", now=NOW)
    with psycopg.connect(database_url) as holder:
        holder.execute("SELECT FROM deliveries LIMIT 1 FOR UPDATE")
        async with shop.engine.begin() as conn:
            assert len(await care(conn)) == 4
        holder.rollback()
    async with shop.engine.begin() as conn:
        assert len(await care(conn)) == 1

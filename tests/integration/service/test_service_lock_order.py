"""Design, section 4: every transaction locks tables in one order, so that none waits in a circle.

PostgreSQL itself is asked, after every statement of every service, which tables the transaction
has locked rows of or written. Rows of one table: `tests/integration/store/test_lock_order.py`.
"""

import asyncio
from collections.abc import AsyncIterator
from random import Random
from typing import Final

import psycopg
import pytest

from paywatch.domain.ledger import History, Landmark, Position
from paywatch.store import histories, network
from paywatch.store.retry import in_transaction
from support import NOW, Shop, make_credit
from support.lock_watch import LockWatch
from support.market import Market
from support.races import Arena, processes

# Settling writes a payment before its credits, and a word locks the credit before its payment: no
# circle, for settling locks no credit that is there already.
ORDER: Final = (
    {"histories"},
    {"cursors"},
    {"accounts"},
    {"checkout_sessions"},
    {"credits", "payments", "quarantine"},
    {"session_transitions"},
    {"events"},
    {"deliveries", "attempts"},
    {"endpoints", "landmarks"},
)
RANK: Final = {table: rank for rank, tables in enumerate(ORDER) for table in tables}
BEGINNING: Final = Position.after_ledger(5)


@pytest.fixture
async def arena(shop: Shop, database_url: str) -> AsyncIterator[Arena]:
    async with processes(database_url, 4) as pools:
        yield Arena(shop, database_url, pools)


def against_the_order(watch: LockWatch) -> list[list[str]]:
    """The transactions that lock a table after one that comes behind it: their statements."""
    return [
        statements
        for steps, statements in watch.seen.items()
        if any(
            max(RANK[table] for table in before) > min(RANK[table] for table in after)
            for n, after in enumerate(steps)
            for before in steps[:n]
        )
    ]


async def test_lesson_19_every_transaction_locks_tables_in_one_order(arena: Arena) -> None:
    watch, market = LockWatch(), Market(arena, Random(1))
    with watch.on(arena.shop.engine, *arena.pools):
        await market.open()
        await market.day()
        await market.evening()
        await change_streams(arena)
    assert against_the_order(watch) == []
    written = {table for steps in watch.seen for step in steps for table in step}
    assert written == RANK.keys(), "each of them was seen"


async def change_streams(arena: Arena) -> None:
    """Read by the network, and by each account again; then another history begins."""
    pool, rng = arena.pool(), Random(1)
    await in_transaction(pool, lambda conn: network.open_network(conn, NOW), rng=rng)
    await in_transaction(pool, lambda conn: network.join(conn, [arena.shop.account], 0), rng=rng)
    await in_transaction(pool, lambda conn: network.leave(conn, NOW), rng=rng)
    history = History(1, Landmark(5, "ab" * 32))
    await in_transaction(pool, lambda conn: histories.begin(conn, history, BEGINNING, NOW), rng=rng)


async def test_two_that_lock_in_opposite_orders_wait_for_each_other(
    shop: Shop, database_url: str
) -> None:
    """The canary: the order matters, and PostgreSQL ends one of the two."""
    await shop.add_session()
    await shop.settle(make_credit())
    lock = {name: f"SELECT FROM {name} FOR UPDATE" for name in ("cursors", "checkout_sessions")}
    with psycopg.connect(database_url) as one, psycopg.connect(database_url) as other:
        one.execute(lock["cursors"])
        other.execute(lock["checkout_sessions"])
        ended = await asyncio.gather(
            asyncio.to_thread(one.execute, lock["checkout_sessions"]),
            asyncio.to_thread(other.execute, lock["cursors"]),
            return_exceptions=True,
        )
        failed = [type(end) for end in ended if isinstance(end, BaseException)]
        assert failed == [psycopg.errors.DeadlockDetected]

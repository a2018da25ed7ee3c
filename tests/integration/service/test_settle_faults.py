"""Settling while the database fails, and while others write: once, whatever happens."""

import asyncio
from collections.abc import AsyncIterator
from itertools import permutations
from random import Random

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from paywatch.domain.ledger import Memo
from paywatch.errors import CursorMoved
from paywatch.service.settle import Order, Settler
from paywatch.store.engine import create_engine
from paywatch.telemetry import Metrics
from support import NOW, Shop, make_batch, make_credit
from support.proxy import Cut, Proxy, database_proxy
from support.statements import watched_statements


@pytest.fixture
async def proxied(database_url: str, shop: Shop) -> AsyncIterator[tuple[Proxy, Settler]]:
    """A settler whose connections to the shop's database go through a proxy."""
    async with database_proxy(database_url) as (proxy, url):
        engine = create_engine(url)
        yield proxy, Settler(engine, shop.metrics, lambda: NOW, Random(1), shop._on_told)
        await engine.dispose()


def retries(metrics: Metrics, reason: str) -> float:
    name, labels = "paywatch_settlement_retries_total", {"reason": reason}
    return metrics.registry.get_sample_value(name, labels) or 0


@pytest.mark.parametrize("cuts", [1, 3])
@pytest.mark.parametrize("cut", [Cut.BEFORE_COMMIT, Cut.AFTER_COMMIT])
@pytest.mark.parametrize("with_cursor", [True, False])
async def test_lesson_20_a_connection_lost_at_commit_settles_once(
    shop: Shop, proxied: tuple[Proxy, Settler], cut: Cut, cuts: int, with_cursor: bool
) -> None:
    proxy, settler = proxied
    await shop.add_session()
    claim = await shop.claim() if with_cursor else None
    batch = make_batch([make_credit()], shop.position)
    proxy.cut, proxy.cuts = cut, cuts

    await settler.settle(Order(batch, "live", claim))

    assert await shop.session() == ("paid", 100)
    for table in ("credits", "payments", "events", "deliveries", "session_transitions"):
        assert await shop.rows(f"SELECT count(*) FROM {table}") == [(1,)], table
    if with_cursor:
        assert await shop.rows("SELECT position FROM cursors") == [(batch.upto,)]
    assert retries(shop.metrics, "connection") >= 1


async def test_an_unknown_commit_is_not_mistaken_for_ours_when_another_instance_leads(
    shop: Shop, proxied: tuple[Proxy, Settler]
) -> None:
    proxy, settler = proxied
    await shop.add_session()
    old = await shop.claim()
    batch = make_batch([make_credit()], old.position)
    new = await shop.claim()
    await shop.settler.settle(Order(batch, "live", new))
    proxy.cut, proxy.cuts = Cut.BEFORE_COMMIT, 1
    with pytest.raises(CursorMoved):
        await settler.settle(Order(batch, "live", old))


async def test_a_server_that_ends_all_connections_loses_nothing(
    database_url: str, shop: Shop
) -> None:
    await shop.add_session()
    claim = await shop.claim()
    kills = 3

    def kill(statement: str, _values: object) -> None:
        nonlocal kills
        if kills and "INSERT INTO credits" in statement:
            kills -= 1
            with psycopg.connect(database_url) as other:
                other.execute(
                    "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )

    with watched_statements(kill):
        await shop.settler.settle(Order(make_batch([make_credit()], claim.position), "live", claim))
    assert kills == 0
    value = shop.metrics.registry.get_sample_value
    assert value("paywatch_settlement_duration_seconds_count") == 4, "each try is measured apart"
    assert await shop.session() == ("paid", 100)
    assert await shop.rows("SELECT count(*) FROM events") == [(1,)]


async def break_the_outbox(shop: Shop) -> None:
    """No delivery can be written, and no waiting helps."""
    await shop.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN RAISE EXCEPTION 'no outbox'; END $$"
    )
    await shop.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON deliveries FOR EACH ROW EXECUTE FUNCTION refuse()"
    )


async def test_lesson_3_no_payment_is_committed_without_the_event_that_tells_of_it(
    shop: Shop,
) -> None:
    await shop.add_session()
    await break_the_outbox(shop)
    with pytest.raises(DBAPIError, match="no outbox"):
        await shop.settle(make_credit())
    assert await shop.session() == ("pending", 0)
    for table in ("credits", "payments", "events", "session_transitions", "quarantine"):
        assert await shop.rows(f"SELECT count(*) FROM {table}") == [(0,)], table
    assert shop.told == 0


async def test_lesson_11_after_a_failure_the_cursor_stands_and_the_batch_comes_again(
    shop: Shop,
) -> None:
    await shop.add_session()
    await break_the_outbox(shop)
    claim = await shop.claim()
    order = Order(make_batch([make_credit()], claim.position), "live", claim)
    with pytest.raises(DBAPIError, match="no outbox"):
        await shop.settler.settle(order)
    assert await shop.rows("SELECT position FROM cursors") == [(claim.position,)]
    await shop.execute("DROP TRIGGER refuse ON deliveries")
    await shop.settler.settle(order)
    assert await shop.rows("SELECT position FROM cursors") == [(order.batch.upto,)]
    assert await shop.session() == ("paid", 100)


async def both(engine: AsyncEngine, shop: Shop, *orders: Order) -> None:
    """Settle orders at the same moment, each on a pool of its own."""
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    engines = [create_engine(url) for _ in orders]
    await asyncio.gather(
        *(
            Settler(engine, shop.metrics, lambda: NOW, Random(n)).settle(order)
            for n, (engine, order) in enumerate(zip(engines, orders, strict=True))
        )
    )
    for used in engines:
        await used.dispose()


async def test_race_two_payments_for_one_session_at_the_same_moment(
    engine: AsyncEngine, shop: Shop
) -> None:
    await shop.add_session()
    orders = [
        Order(make_batch([make_credit(100, ledger=ledger)]), f"reader {ledger}")
        for ledger in range(1001, 1009)
    ]
    await both(engine, shop, *orders)
    assert await shop.session() == ("paid", 100)
    outcomes = await shop.rows("SELECT outcome, count(*) FROM credits GROUP BY 1 ORDER BY 1")
    assert outcomes == [("applied", 1), ("duplicate", 7)]
    assert await shop.rows("SELECT count(*) FROM payments") == [(1,)]
    assert await shop.rows("SELECT type, count(*) FROM events GROUP BY type ORDER BY type") == [
        ("checkout.session.paid", 1),
        ("payment.unapplied", 7),
    ]


async def test_race_the_same_hash_submitted_twice(engine: AsyncEngine, shop: Shop) -> None:
    """Live stream, backfill and recovery bring one record at the same moment."""
    await shop.add_session()
    await both(engine, shop, *[Order(make_batch([make_credit(60)]), str(n)) for n in range(8)])
    assert await shop.session() == ("partially_paid", 60)
    assert await shop.rows("SELECT count(*) FROM credits") == [(1,)]


async def test_lesson_19_batches_that_name_sessions_in_opposite_orders_do_not_deadlock(
    engine: AsyncEngine, shop: Shop
) -> None:
    numbers = range(1, 5)
    for number in numbers:
        await shop.add_session(number)
    orders = []
    for ledger, order in enumerate(list(permutations(numbers))[:8], start=1001):
        credits_ = [
            make_credit(1, ledger=ledger, tx=place, memo=Memo.of_id(number))
            for place, number in enumerate(order, start=1)
        ]
        orders.append(Order(make_batch(credits_), f"reader {ledger}"))
    await both(engine, shop, *orders)
    assert [await shop.session(number) for number in numbers] == [("partially_paid", 8)] * 4
    assert retries(shop.metrics, "deadlock") == 0

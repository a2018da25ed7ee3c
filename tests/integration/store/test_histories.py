"""A test network that began again: positions, ledgers and even hashes come a second time."""

import asyncio
from dataclasses import replace

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from paywatch.domain.ledger import History, Landmark, Memo, Position
from paywatch.errors import CursorMoved, NetworkReset
from paywatch.service.settle import Order
from paywatch.store import checkout, cursors, gaps, histories
from paywatch.store.cursors import Cursor, backfill_stream, live_stream
from support import (
    ACCOUNT,
    NOW,
    START,
    Shop,
    batch_of,
    closing,
    make_batch,
    make_credit,
    make_session,
)
from support.locks import somebody_waits_for_a_lock

GENESIS = Position.after_ledger(0)
SEEN = Landmark(2, "ab" * 32)
LIVE = live_stream(ACCOUNT)


async def reset(engine: AsyncEngine, number: int = 1) -> tuple[list[str], list[str]] | None:
    async with engine.begin() as conn:
        return await histories.begin(conn, History(number, SEEN), GENESIS, NOW)


async def cursor_of(engine: AsyncEngine) -> Cursor:
    async with engine.begin() as conn:
        found = await cursors.read(conn, LIVE)
    assert found is not None
    return found


async def test_a_new_history_begins_every_stream_and_forgets_the_old_backfills(shop: Shop) -> None:
    before = await shop.claim()
    stale = backfill_stream(ACCOUNT, START)
    async with shop.engine.begin() as conn:
        end = Position.after_ledger(2000)
        await cursors.open_stream(conn, Cursor(stale, ACCOUNT, START, end_position=end), NOW)
        assert await histories.read(conn) == History()
    assert await reset(shop.engine) == ([LIVE], [stale])
    after = await cursor_of(shop.engine)
    assert after == replace(before, position=GENESIS, epoch=before.epoch + 1, history=1)
    assert await shop.rows("SELECT start_position FROM accounts") == [(GENESIS,)]
    async with shop.engine.begin() as conn:
        assert await histories.read(conn) == History(1, SEEN)
    assert await reset(shop.engine) is None, "the other of two at once does nothing"
    assert await cursor_of(shop.engine) == after


async def test_the_same_operation_of_the_same_transaction_counts_again_in_a_new_history(
    shop: Shop,
) -> None:
    """Testnet began again: one envelope is valid twice, at one position, with one hash."""
    await shop.add_session()
    half = make_credit(50)
    await shop.settle(half)
    assert await shop.session() == ("partially_paid", 50)
    await reset(shop.engine)
    again = replace(half, closed_at=closing(1100))
    await shop.settle(again)
    assert await shop.session() == ("paid", 100)
    await shop.settle(again)
    assert await shop.session() == ("paid", 100), "and within a history it counts once"
    keys = "SELECT operation_id, change_index, history FROM credits ORDER BY history"
    assert await shop.rows(keys) == [(*half.key, 0), (*half.key, 1)]
    paid = "SELECT encode(tx_hash, 'hex'), closed_at, history FROM payments ORDER BY history"
    assert await shop.rows(paid) == [
        (half.tx_hash, half.closed_at, 0),
        (half.tx_hash, again.closed_at, 1),
    ]


async def test_all_of_a_new_history_lies_behind_the_opening_of_a_session_of_the_old(
    shop: Shop,
) -> None:
    """Its number is far above the new ledgers': no payment would ever have matched."""
    await shop.add_session(1)
    await shop.add_session(2)
    await shop.settle(make_credit())
    await reset(shop.engine)
    early = make_credit(ledger=5, memo=Memo.of_id(2), closed_at=closing(1100))
    await shop.settle(early, make_credit(ledger=6, closed_at=closing(1100)))
    assert await shop.session(2) == ("paid", 100)
    outcomes = "SELECT operation_id >> 32, outcome FROM credits WHERE history = 1 ORDER BY 1"
    assert await shop.rows(outcomes) == [(5, "applied"), (6, "duplicate")]


async def test_a_session_opened_in_the_new_history_has_its_own_beginning(shop: Shop) -> None:
    await reset(shop.engine)
    async with shop.engine.begin() as conn:
        opened = make_session(1, opened_position=Position.after_ledger(9))
        await checkout.insert(conn, opened, NOW, history=1)
    before = make_credit(ledger=9, closed_at=closing(1000))
    await shop.settle(before)
    assert await shop.session() == ("pending", 0)
    await shop.settle(replace(before, operation_id=Position.of(10, 1, 1), tx_hash="cd" * 32))
    assert await shop.session() == ("paid", 100)


async def test_race_a_settlement_in_flight_loses_to_the_reset(
    shop: Shop, database_url: str
) -> None:
    """What was read of the old history must not be written as the new one's."""
    await shop.add_session()
    claim = await shop.claim()
    order = Order(make_batch([make_credit()], after=START), by=LIVE, claim=claim)
    with psycopg.connect(database_url) as holder, psycopg.connect(database_url) as watcher:
        holder.execute("SELECT FROM cursors FOR UPDATE")
        resetting = asyncio.ensure_future(reset(shop.engine))
        await somebody_waits_for_a_lock(watcher)
        settling = asyncio.ensure_future(shop.settler.settle(order))
        await somebody_waits_for_a_lock(watcher, count=2)
        holder.rollback()
        assert await resetting == ([LIVE], [])
        with pytest.raises(CursorMoved):
            await settling
    assert await shop.session() == ("pending", 0)
    assert await shop.rows("SELECT count(*) FROM credits") == [(0,)]


async def test_race_what_recovery_read_of_the_old_history_is_not_written_as_the_new_ones(
    shop: Shop,
) -> None:
    """It moves no cursor, so no epoch stops it."""
    await shop.add_session()
    order = Order(make_batch([make_credit()]), "recover", history=await shop.settler.history())
    await reset(shop.engine)
    with pytest.raises(NetworkReset, match="history 0, which is over"):
        await shop.settler.settle(order)
    assert await shop.session() == ("pending", 0)
    await shop.settler.settle(replace(order, history=await shop.settler.history()))
    assert await shop.session() == ("paid", 100)


async def test_a_landmark_is_kept_for_the_present_history_and_moved_by_who_knows_the_last(
    engine: AsyncEngine,
) -> None:
    later = Landmark(500, "cd" * 32)
    async with engine.begin() as conn:
        assert await histories.keep_landmark(conn, History(), SEEN, NOW)
        assert await histories.read(conn) == History(0, SEEN)
        assert not await histories.keep_landmark(conn, History(), later, NOW), "not the first"
        assert not await histories.keep_landmark(conn, History(1), later, NOW), "not yet"
        assert await histories.keep_landmark(conn, History(0, SEEN), later, NOW)
        assert await histories.read(conn) == History(0, later)


async def test_an_accepted_gap_moves_the_cursor_expires_nothing_and_is_written_down(
    shop: Shop,
) -> None:
    await shop.add_session(expires_at=closing(1050))
    claim = await shop.claim()
    await shop.settler.settle(Order(batch_of([], START, START + 1), by=LIVE, claim=claim))
    before, upto = await cursor_of(shop.engine), Position.after_ledger(1499)
    async with shop.engine.begin() as conn:
        assert await gaps.accept(conn, before, upto, NOW)
        assert not await gaps.accept(conn, before, upto, NOW), "said twice"
        [gap] = await gaps.read_all(conn)
    assert (gap.stream, gap.after, gap.upto) == (LIVE, before.position, upto)
    assert await cursor_of(shop.engine) == replace(before, position=upto, epoch=before.epoch + 1)
    with pytest.raises(CursorMoved):
        await shop.settler.settle(Order(batch_of([], START + 1, START + 2), LIVE, claim))


async def test_sessions_that_a_gap_may_have_been_paid_in_are_found(shop: Shop) -> None:
    in_it = await shop.add_session(1, expires_at=closing(1050))
    await shop.add_session(2, expires_at=closing(1001))
    await shop.add_session(3, expires_at=closing(1050))
    await shop.settle(make_credit(memo=Memo.of_id(3)))
    async with shop.engine.begin() as conn:
        for account in (ACCOUNT, None):
            found = await gaps.open_sessions(conn, account, closing(1010), closing(1100))
            assert [row.id for row in found] == ([in_it.id] if account else [])
        assert len(await gaps.open_sessions(conn, ACCOUNT, None, closing(1100))) == 2
        assert not await gaps.open_sessions(conn, ACCOUNT, None, closing(900)), "opened later"

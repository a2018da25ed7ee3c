"""Cursors: moved by compare-and-set, by the latest claim only, and never down."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from paywatch.domain.ledger import Batch, Position
from paywatch.store import cursors
from paywatch.store.cursors import Cursor, backfill_stream, live_stream
from support import ACCOUNT, NOW, START, Shop, batch_of, closing

LIVE = live_stream(ACCOUNT)
END = Position.after_ledger(1010)


async def claimed(conn: AsyncConnection) -> Cursor:
    claim = await cursors.claim(conn, LIVE, NOW)
    assert claim is not None
    return claim


def batch(after: int, ledger: int) -> Batch:
    return batch_of([], after, Position.after_ledger(ledger))


async def test_a_new_cursor_stands_where_it_was_opened_and_has_read_nothing(shop: Shop) -> None:
    async with shop.engine.begin() as conn:
        assert await cursors.read(conn, LIVE) == Cursor(LIVE, ACCOUNT, START)
        assert await cursors.read(conn, "live:nobody") is None
        assert await cursors.claim(conn, "live:nobody", NOW) is None


async def test_opening_again_touches_no_position(shop: Shop) -> None:
    """A second start does not begin anew (lesson 15)."""
    async with shop.engine.begin() as conn:
        claim = await claimed(conn)
        await cursors.advance(conn, LIVE, claim.epoch, batch(START, 1005), NOW)
        before = await cursors.read(conn, LIVE)
        await cursors.open_stream(conn, Cursor(LIVE, ACCOUNT, START), NOW)
        await cursors.open_stream(conn, Cursor(LIVE, ACCOUNT, END), NOW)
        assert await cursors.read(conn, LIVE) == before


async def test_a_claim_raises_the_epoch_and_shuts_the_last_leader_out(shop: Shop) -> None:
    async with shop.engine.begin() as conn:
        old, new = await claimed(conn), await claimed(conn)
        assert (old.epoch, new.epoch) == (1, 2)
        assert not await cursors.advance(conn, LIVE, old.epoch, batch(START, 1001), NOW)
        assert await cursors.advance(conn, LIVE, new.epoch, batch(START, 1001), NOW)


async def test_lesson_6_it_moves_only_from_where_it_stands(shop: Shop) -> None:
    async with shop.engine.begin() as conn:
        epoch = (await claimed(conn)).epoch
        assert not await cursors.advance(conn, LIVE, epoch, batch(START - 1, 1001), NOW)
        assert not await cursors.advance(conn, LIVE, epoch, batch(START + 1, 1001), NOW)
        assert await cursors.advance(conn, LIVE, epoch, batch(START, 1001), NOW)
        assert not await cursors.advance(conn, LIVE, epoch, batch(START, 1001), NOW)
        assert await cursors.read(conn, LIVE) == Cursor(
            LIVE, ACCOUNT, Position.after_ledger(1001), epoch, read_through_at=closing(1001)
        )


async def test_the_ledgers_clock_never_goes_back(shop: Shop) -> None:
    async with shop.engine.begin() as conn:
        epoch = (await claimed(conn)).epoch
        await cursors.advance(conn, LIVE, epoch, batch(START, 1001), NOW)
        later = batch(Position.after_ledger(1001), 1002)
        for closed_at in (None, closing(1001) - timedelta(hours=1)):
            moved = replace(later, upto=later.after, closed_at=closed_at)
            assert await cursors.advance(conn, LIVE, epoch, moved, NOW)
            found = await cursors.read(conn, LIVE)
            assert found is not None
            assert found.read_through_at == closing(1001)


@pytest.mark.parametrize("change", ["position = position - 1", "epoch = epoch - 1"])
async def test_lesson_22_a_cursor_cannot_go_down_whoever_tries(shop: Shop, change: str) -> None:
    await shop.claim()
    with pytest.raises(IntegrityError, match="may not go down"):
        await shop.execute(f"UPDATE cursors SET {change}")


async def test_a_backfill_is_forgotten_only_by_its_claim_and_at_its_end(shop: Shop) -> None:
    stream = backfill_stream(ACCOUNT, START)
    async with shop.engine.begin() as conn:
        await cursors.open_stream(conn, Cursor(stream, ACCOUNT, START, end_position=END), NOW)
        claim = await cursors.claim(conn, stream, NOW)
        assert claim is not None
        assert claim.end_position == END
        await cursors.close_backfill(conn, claim)
        assert [c.stream for c in await cursors.read_unfinished(conn)] == [stream]
        await cursors.advance(conn, stream, claim.epoch, batch_of([], START, END), NOW)
        await cursors.close_backfill(conn, replace(claim, epoch=claim.epoch + 1))
        assert [c.stream for c in await cursors.read_unfinished(conn)] == [stream]
        await cursors.close_backfill(conn, claim)
        assert [c.stream for c in await cursors.read_all(conn)] == [LIVE]


async def test_a_live_cursor_is_never_taken_for_a_backfill(shop: Shop) -> None:
    async with shop.engine.begin() as conn:
        await cursors.close_backfill(conn, await claimed(conn))
        assert await cursors.read_unfinished(conn) == []
        assert (await conn.execute(text("SELECT count(*) FROM cursors"))).scalar_one() == 1

"""Writes in turn: what is made ready meanwhile, and what of an error."""

import asyncio
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from paywatch.errors import StoreError
from paywatch.store.writes import Write, in_turn

LOG = "INSERT INTO log SELECT generate_series(1, CAST(:count AS int))"
LOCK = 7  # an advisory lock's number
LOCKED_LOG = f"{LOG} FROM (SELECT pg_advisory_xact_lock({LOCK})) AS lock"
LONGEST_S = 20


def log(count: int, *, rows: int | None = None, sql: str = LOG) -> Write:
    return Write(text(sql), {"count": count}, rows)


@pytest.fixture(autouse=True)
async def _log(engine: AsyncEngine) -> None:
    async with engine.begin() as conn:
        await conn.execute(text("CREATE TABLE log (number int)"))


async def logged(engine: AsyncEngine) -> int:
    async with engine.connect() as conn:
        count: int = (await conn.execute(text("SELECT count(*) FROM log"))).scalar_one()
        return count


async def test_the_next_is_made_ready_while_the_one_before_is_at_work(
    engine: AsyncEngine, database_url: str
) -> None:
    """The first waits for a lock that is let go only where the second is made."""
    with psycopg.connect(database_url) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])

        def writes() -> Iterator[Write]:
            yield log(1, sql=LOCKED_LOG)
            other.rollback()
            yield log(2)

        async with asyncio.timeout(LONGEST_S), engine.begin() as conn:
            await in_turn(conn, writes())
    assert await logged(engine) == 3


async def test_what_cannot_be_made_ready_leaves_nothing_under_way(engine: AsyncEngine) -> None:
    def writes() -> Iterator[Write]:
        yield log(1)
        raise ZeroDivisionError

    async with engine.connect() as conn:
        await conn.begin()
        with pytest.raises(ZeroDivisionError):
            await in_turn(conn, writes())
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await conn.rollback()
        assert (await conn.execute(text("SELECT 7"))).scalar_one() == 7
    assert await logged(engine) == 0


async def test_what_wrote_other_than_it_must_is_an_error_and_nothing_follows(
    engine: AsyncEngine,
) -> None:
    async with engine.begin() as conn:
        with pytest.raises(StoreError, match="2 of 3 rows"):
            await in_turn(conn, [log(1, rows=1), log(2, rows=3), log(4)])
        assert (await conn.execute(text("SELECT count(*) FROM log"))).scalar_one() == 3


@pytest.mark.parametrize("sent", [False, True], ids=["before it is sent", "while it works"])
async def test_who_is_cancelled_leaves_nothing_under_way(
    engine: AsyncEngine, database_url: str, *, sent: bool
) -> None:
    ready = asyncio.Event()

    def writes() -> Iterator[Write]:
        yield log(1, sql=LOCKED_LOG)
        ready.set()
        yield log(2)

    with psycopg.connect(database_url) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        async with engine.connect() as conn:
            await conn.begin()
            writing = asyncio.ensure_future(in_turn(conn, writes()))
            await (ready.wait() if sent else asyncio.sleep(0))
            assert ready.is_set() == sent
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
            assert asyncio.all_tasks() == {asyncio.current_task()}
    assert await logged(engine) == 0

"""Poolers: one that keeps sessions is as good as none, one that does not is found out."""

from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from paywatch.store import leadership
from paywatch.store.engine import create_engine, create_lock_engine
from paywatch.store.pooler import shares_connections
from support.pgbouncer import behind_pgbouncer


async def test_the_database_itself_is_no_pooler(engine: AsyncEngine) -> None:
    assert not await shares_connections(engine)


@pytest.mark.parametrize("settings", ["transaction", "transaction\nserver_round_robin=1"])
async def test_lesson_21_a_pooler_that_shares_connections_is_found_out(
    database_url: str, tmp_path: Path, settings: str
) -> None:
    """There two processes can hold one lock."""
    async with behind_pgbouncer(database_url, settings, tmp_path) as url:
        engine = create_engine(url)
        assert await shares_connections(engine)
        locks = create_lock_engine(engine)
        async with locks.connect() as one, locks.connect() as other:
            assert await leadership.acquire(one, ["live:G"]) == {"live:G"}
            assert await leadership.acquire(other, ["live:G"]) == {"live:G"}
        await engine.dispose()


async def test_a_pooler_in_session_mode_is_no_hindrance(database_url: str, tmp_path: Path) -> None:
    async with behind_pgbouncer(database_url, "session", tmp_path) as url:
        engine = create_engine(url)
        assert not await shares_connections(engine)
        locks = create_lock_engine(engine)
        async with locks.connect() as one, locks.connect() as other:
            assert await leadership.acquire(one, ["live:G"]) == {"live:G"}
            assert await leadership.acquire(other, ["live:G"]) == set()
        await engine.dispose()

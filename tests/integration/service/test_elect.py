"""Elections on a real database: who leads, until when, and how soon another one does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from paywatch.service.elect import Timing
from paywatch.store import leadership
from paywatch.store.engine import create_engine, create_lock_engine
from paywatch.telemetry import Progress
from support.elections import election_on
from support.proxy import database_proxy

STREAMS = [f"live:{n}" for n in range(3)]
QUICK = Timing(round_s=0.01, answer_s=0.3)


def wall_clock() -> datetime:
    return datetime.now(UTC)


@dataclass
class Party:
    """A process that stands for streams."""

    engine: AsyncEngine
    timing: Timing = QUICK
    progress: Progress = field(default_factory=Progress)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    told: list[tuple[str, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.election = election_on(self.engine, wall_clock, self.progress, self.timing)
        self.statements: list[str] = []
        event.listen(self.election.engine.sync_engine, "before_cursor_execute", self._count)

    def _count(self, _conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self.statements.append(statement)

    @asynccontextmanager
    async def standing(self, *streams: str) -> AsyncIterator[None]:
        """Stand for streams within the block."""
        running = asyncio.create_task(self.election.run(self.stop))
        async with AsyncExitStack() as stack:
            for stream in streams:
                stack.enter_context(self.election.candidate(stream, self._tell(stream)))
            yield
        self.stop.set()
        async with asyncio.timeout(10):
            await running

    def _tell(self, stream: str) -> Any:
        return lambda leads: self.told.append((stream, leads))

    async def leads(self, *streams: str) -> list[asyncio.Event]:
        """Wait until it leads these; for each the event that ends that."""
        async with asyncio.timeout(10):
            return await asyncio.gather(*map(self.election.lead, streams))


async def locks_held(engine: AsyncEngine) -> int:
    async with engine.connect() as conn:
        found = await conn.execute(
            text(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND database"
                " = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
        )
        return int(found.scalar_one())


async def test_one_of_two_leads_every_stream_and_the_other_takes_over_at_its_end(
    engine: AsyncEngine,
) -> None:
    first, second = Party(engine), Party(engine)
    async with second.standing(*STREAMS):
        async with first.standing(*STREAMS):
            await first.leads(*STREAMS)
            waiting = asyncio.create_task(second.leads(*STREAMS))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(waiting), 0.1)
            assert (first.election.led, second.election.led) == (set(STREAMS), set())
        await waiting
        assert second.election.led == set(STREAMS)
    assert await locks_held(engine) == 0


async def test_streams_that_are_added_can_have_another_leader(engine: AsyncEngine) -> None:
    """There is no leader of everything: each stream has its own."""
    first, second = Party(engine), Party(engine)
    async with first.standing(STREAMS[0]), second.standing(*STREAMS):
        await first.leads(STREAMS[0])
        await second.leads(*STREAMS[1:])
        assert first.election.led == {STREAMS[0]}
        assert second.election.led == set(STREAMS[1:])


async def test_a_stream_that_nobody_stands_for_any_more_is_given_back(engine: AsyncEngine) -> None:
    first, second = Party(engine), Party(engine)
    async with first.standing(STREAMS[0]), second.standing(STREAMS[1]):
        with first.election.candidate(STREAMS[1], lambda _leads: None):
            await first.leads(*STREAMS[:2])
            waiting = asyncio.create_task(second.leads(STREAMS[1]))
        await waiting
        assert first.election.led == {STREAMS[0]}


async def test_a_stop_ends_the_election_when_the_last_candidate_has_gone(
    engine: AsyncEngine,
) -> None:
    """What is led is led until its last batch is settled."""
    party = Party(engine)
    async with party.standing(STREAMS[0]):
        [lost] = await party.leads(STREAMS[0])
        party.stop.set()
        await party.leads(STREAMS[0])
        assert await locks_held(engine) == 1
        assert not lost.is_set()
        assert not any("pg_advisory_unlock" in statement for statement in party.statements)
    assert await locks_held(engine) == 0
    given_back = any("pg_advisory_unlock" in statement for statement in party.statements)
    assert given_back, "the end of a connection frees its locks only when the server sees it"


async def test_ten_thousand_streams_cost_one_connection_and_one_statement_a_round(
    engine: AsyncEngine,
) -> None:
    streams = [f"live:{n:056d}" for n in range(10_000)]
    leader, standby = Party(engine, Timing(round_s=3600)), Party(engine)
    async with leader.standing(*streams), standby.standing(*streams):
        waiting = asyncio.gather(*map(leader.election.lead, streams))
        await waiting
        assert len(leader.statements) <= 2, "the first round may begin before they all have asked"
        assert len(leader.election.led) == await locks_held(engine) == 10_000
        late = [asyncio.create_task(standby.election.lead(stream)) for stream in streams]
        async with asyncio.timeout(10):
            while len(standby.statements) < 3:  # noqa: ASYNC110 - a round has no event
                await asyncio.sleep(0)
        async with engine.connect() as conn:
            holders = "SELECT count(DISTINCT pid) FROM pg_locks WHERE locktype = 'advisory'"
            assert (await conn.execute(text(holders))).scalar_one() == 1
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


async def test_lesson_21_the_locks_of_a_frozen_holder_go_with_its_silence(
    engine: AsyncEngine,
) -> None:
    """Without `idle_session_timeout` they were never free again."""
    frozen, standby = create_lock_engine(engine), Party(engine)
    async with frozen.connect() as conn, standby.standing(*STREAMS):
        assert await leadership.acquire(conn, STREAMS) == set(STREAMS)
        await standby.leads(*STREAMS)  # within its 10 s


async def test_a_lost_connection_is_the_end_of_every_leadership_until_it_is_won_again(
    database_url: str, engine: AsyncEngine
) -> None:
    async with database_proxy(database_url) as (proxy, url):
        party = Party(create_engine(url))
        async with party.standing(*STREAMS):
            events = await party.leads(*STREAMS)
            with capture_logs() as logs:
                await proxy.lose_all()
                async with asyncio.timeout(10):
                    await asyncio.gather(*(lost.wait() for lost in events))
                assert sorted(party.told[:3]) == [(stream, True) for stream in STREAMS]
                assert sorted(party.told[3:]) == [(stream, False) for stream in STREAMS]
                again = await party.leads(*STREAMS)
            assert not any(lost.is_set() for lost in again)
            assert logs[0]["event"] == "leadership_lost"
            assert await locks_held(engine) == len(STREAMS)


async def test_a_database_that_falls_silent_is_away_although_the_connection_stands(
    database_url: str, engine: AsyncEngine
) -> None:
    """A cut cable says nothing: no error, for as long as one waits."""
    async with database_proxy(database_url) as (proxy, url):
        party, standby = Party(create_engine(url)), Party(engine)
        async with party.standing(*STREAMS):
            events = await party.leads(*STREAMS)
            proxy.stall()
            async with asyncio.timeout(10):
                await asyncio.gather(*(lost.wait() for lost in events))
            async with standby.standing(*STREAMS):
                await standby.leads(*STREAMS)
            await proxy.flow()
            await party.leads(*STREAMS)


async def test_leading_is_found_out_anew_at_each_call(engine: AsyncEngine, cluster: str) -> None:
    """A process that was frozen believes that it leads, and must not act on that."""
    sleeper = Party(engine, Timing(round_s=3600))
    async with sleeper.standing(STREAMS[0]):
        [lost] = await sleeper.leads(STREAMS[0])
        with psycopg.connect(cluster, autocommit=True) as server:
            server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype='advisory'"
            )
        assert sleeper.election.led
        assert not lost.is_set()
        [again] = await sleeper.leads(STREAMS[0])
        assert lost.is_set()
        assert again is not lost


async def test_who_waits_for_the_database_has_not_hung() -> None:
    nowhere = Party(create_engine("postgresql://u@127.0.0.1:9/x"))
    with capture_logs() as logs:
        async with nowhere.standing(STREAMS[0]):
            async with asyncio.timeout(10):
                while len(logs) < 2:  # noqa: ASYNC110 - a log line has no event
                    await asyncio.sleep(0.01)
            assert nowhere.progress.stale(wall_clock()) == []
            nowhere.stop.set()
    assert {log["event"] for log in logs} == {"leadership_lost"}
    assert {log["reason"] for log in logs} == {"connection"}
    assert nowhere.progress.stale(datetime.max.replace(tzinfo=UTC)) == []

"""Backfills as processes that are killed at random points, begun again, and done in the end.

Each round takes a fresh copy of one database and lets `paywatch backfill` read one ledger into it:
alone, or two at once; killed so many times. Then the rows are held against those of a backfill that
nobody disturbed.
"""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

import psycopg

from paywatch.domain.ledger import Position
from paywatch.sim import LedgerSettings, NetworkSettings, SimNetwork
from support.databases import Cluster
from support.program import Program, running
from support.rows import Rows, differences, settled_rows
from support.shops import RATES, Opening, Street
from support.site import environ_of, settings_of

STARTED_AT: Final = datetime(2026, 11, 1, tzinfo=UTC)
PREPARED: Final = "prepared"
LONGEST_S: Final = 120.0  # for one process to end by itself
LITTLE_S: Final = 0.05  # about what settling one page takes
_WRITES: Final = """
SELECT 1 FROM pg_stat_activity
 WHERE datname = current_database() AND backend_xid IS NOT NULL LIMIT 1"""


@dataclass
class Figures:
    """What was done to the backfills."""

    operations: int
    rounds: int = 0
    starts: int = 0
    kills: int = 0
    servers_killed: int = 0
    two_at_once: int = 0
    places: set[int] = field(default_factory=set)  # where a cursor stood when it was killed
    rounds_different: int = 0
    different: Counter[str] = field(default_factory=Counter)  # rounds, by table


@dataclass
class Trial:
    """One ledger, one prepared database, and what an undisturbed backfill makes of them."""

    cluster: Cluster
    network: SimNetwork
    rng: Random
    expected: Rows
    figures: Figures

    async def run_round(self, kills: int, *, at_once: int = 1, kill_server: bool = False) -> None:
        """Backfill one copy, killing `kills` processes on the way; compare in the end."""
        name = f"round_{self.figures.rounds}"
        url = self.cluster.copy(PREPARED, name)
        if kill_server:
            await self._kill_server(name)
        wanted = self.figures.kills + kills
        while self.figures.kills < wanted:
            await self._kill_one(url, at_once)
        while 0 not in await self._to_the_end(url, at_once):
            pass  # of two at once, each may have taken the other's claim
        self.figures.rounds += 1
        self.figures.two_at_once += at_once > 1
        different = differences(self.expected, settled_rows(url))
        self.figures.rounds_different += bool(different)
        self.figures.different.update(different.keys())
        self.cluster.drop(name)

    async def _kill_one(self, url: str, at_once: int) -> None:
        """Start, and kill one at a random moment; one that was done before that is not counted."""
        async with self._backfills(url, at_once) as (victim, *others):
            await self._random_moment(url, victim)
            if victim.process.returncode is None:
                await victim.kill()
            self.figures.kills += victim.process.returncode == -signal.SIGKILL
            await asyncio.gather(*(other.ended(LONGEST_S) for other in others))
        self.figures.places.update(_places(url))

    async def _kill_server(self, name: str) -> None:
        """Kill PostgreSQL beneath a backfill: all its connections break, and it recovers."""
        url = self.cluster.url(name)
        async with self._backfills(url, 1) as (program,):
            await self._random_moment(url, program)
            with suppress(ValueError):  # it was done already
                self.cluster.kill_backend(name)
                self.figures.servers_killed += 1
            await program.ended(LONGEST_S)

    async def _to_the_end(self, url: str, at_once: int) -> list[int]:
        async with self._backfills(url, at_once) as programs:
            return await asyncio.gather(*(program.ended(LONGEST_S) for program in programs))

    @asynccontextmanager
    async def _backfills(self, url: str, at_once: int) -> AsyncIterator[list[Program]]:
        environ = environ_of(settings_of(self.network, url))
        async with AsyncExitStack() as stack:
            self.figures.starts += at_once
            starts = [running(environ, "backfill", "--json") for _ in range(at_once)]
            yield [await stack.enter_async_context(start) for start in starts]

    async def _random_moment(self, url: str, program: Program) -> None:
        """Wait for one of three kinds of moments, and a little more; or for the program's end."""
        moments = [self._request, self._line, self._tx]
        moment = asyncio.ensure_future(self.rng.choice(moments)(url, program))
        end = asyncio.ensure_future(program.process.wait())
        await asyncio.wait([moment, end], return_when=asyncio.FIRST_COMPLETED)
        for waiting in (moment, end):
            waiting.cancel()
        await asyncio.gather(moment, end, return_exceptions=True)
        await asyncio.sleep(self.rng.uniform(0, LITTLE_S))

    async def _request(self, _url: str, _program: Program) -> None:
        """It asks Horizon for the n-th time."""
        requests = self.network.requests
        wanted = requests.total + self.rng.randint(1, self._pages)
        await requests.wait_for(lambda _: requests.total >= wanted)

    async def _line(self, _url: str, program: Program) -> None:
        """It has settled the n-th page."""
        await program.log.wait_for(
            lambda line: line.get("event") == "backfill", self.rng.randint(1, self._pages)
        )

    async def _tx(self, url: str, _program: Program) -> None:
        """It has begun to write; polled, for only the database knows."""
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
            for _ in range(self.rng.randint(1, self._pages)):
                for writes in (False, True):
                    while (await (await conn.execute(_WRITES)).fetchone() is not None) != writes:
                        pass

    @property
    def _pages(self) -> int:
        return min(6, self.figures.operations // 200)


@asynccontextmanager
async def open_trial(cluster: Cluster, operations: int, rng: Random) -> AsyncIterator[Trial]:
    """Write a ledger and the database before it, and read the one into a copy of the other."""
    settings = NetworkSettings(started_at=STARTED_AT, ledger=LedgerSettings(rates=RATES))
    async with SimNetwork(settings) as network:
        shop = network.wallet("shop")
        sessions = operations // 4
        street = Street(network, rng, [shop], sessions)
        await street.open()
        opening = Opening(
            [shop.account_id],
            sessions,
            Position.after_ledger(network.ledger.latest.sequence),
            network.ledger.latest.closed_at,
            [STARTED_AT + timedelta(minutes=1), STARTED_AT + timedelta(days=1)],
        )
        opening.write(cluster.create(PREPARED))
        while street.operations < operations:
            await street.pay(rng.randint(1, 20))
        trial = Trial(cluster, network, rng, {}, Figures(street.operations))
        undisturbed = cluster.copy(PREPARED, "undisturbed")
        assert await trial._to_the_end(undisturbed, 1) == [0]
        trial.expected.update(settled_rows(undisturbed))
        found = len(trial.expected["credits"])
        assert found == street.operations, f"{found} of {street.operations} credits"
        trial.figures.starts = 0
        yield trial


def _places(url: str) -> list[int]:
    with psycopg.connect(url) as conn:
        rows = conn.execute("SELECT position FROM cursors WHERE end_position IS NOT NULL")
        return [row[0] for row in rows]

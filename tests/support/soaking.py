"""A daemon that works for a long time at a steady rate with faults, and what is left of it.

The simulated network, the customers and the merchant's server are in this process, the daemon and
PostgreSQL in others. Faults: Horizon's, drawn for each request and event; the merchant's, drawn
for each webhook; and connections to the database that are ended from the server's side.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random
from typing import Any, Final, LiteralString
from uuid import UUID

import aiohttp
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

from paywatch import config
from paywatch.cli.running import open_house
from paywatch.sim import Fault, FaultRule, FaultSettings
from support.asking import Asking
from support.commands import answer
from support.moody import Moody
from support.program import Program, running
from support.site import Site, open_site
from support.soak_samples import Sample, Sampler
from support.soak_traffic import Due, Traffic

LEDGER_S: Final = 1.0
SHARE_OF_ALL_KILLS: Final = 0.1  # of the blows at connections, those that end every one
REST_S: Final = 240.0

_MOMENTS: Final = {
    Fault.HANG: 0.1,  # each costs seconds: as rare among the others as it is in the world
    Fault.DELAY: 2.0,
}
_KILL = """
SELECT pg_terminate_backend(pid) FROM (
    SELECT pid FROM pg_stat_activity
     WHERE application_name = 'paywatch' AND datname = current_database()
     ORDER BY pid OFFSET %s LIMIT %s) blow"""
# The clock's part: a delivery that failed three times is tried half an hour later.
_DUE_NOW = "UPDATE deliveries SET due_at = now() WHERE state = 'pending' AND lease_token IS NULL"
_OPEN = """
SELECT (SELECT count(*) FROM checkout_sessions
         WHERE status NOT IN ('paid', 'expired')),
       (SELECT count(*) FROM deliveries WHERE state = 'pending'),
       (SELECT count(*) FROM credits)"""
_SESSIONS = """
SELECT s.id, s.status, s.received, count(c.operation_id) FILTER (WHERE c.outcome <> 'applied')
  FROM checkout_sessions s LEFT JOIN credits c ON c.session_id = s.id GROUP BY s.id"""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how much, how bad.

    Attributes:
        minutes: of traffic with faults; the time to come to rest is added.
        rate: sessions a second.
        fault_rate: the share of Horizon's moments, and of the merchant's answers, that go wrong.
        kill_every_s: seconds between blows at the database's connections, on average.
        expires_in: of each session.
        sample_s: seconds between two looks.
    """

    minutes: float
    rate: float = 5.0
    fault_rate: float = 0.02
    kill_every_s: float = 45.0
    expires_in: timedelta = timedelta(seconds=60)
    sample_s: float = 5.0


@dataclass
class Soak:
    """One run.

    Attributes:
        samples: what was seen while there was traffic.
        at_rest: what was seen when everything had come to rest.
        wrong: what is not as it must be.
    """

    site: Site
    merchant: Moody
    traffic: Traffic
    plan: Plan
    rng: Random
    asking: Asking
    samples: list[Sample] = field(default_factory=list)
    at_rest: Sample | None = None
    tables: dict[str, dict[str, int]] = field(default_factory=dict)
    blows: Counter[str] = field(default_factory=Counter)
    logged: Counter[str] = field(default_factory=Counter)
    rest_s: float = 0.0
    wrong: list[str] = field(default_factory=list)

    async def run(self, tell: Callable[[Sample], None] = lambda _: None) -> None:
        """Let the daemon work, let it come to rest, and look what is left.

        Args:
            tell: told each sample.

        Raises:
            AssertionError: the daemon ended by itself, or does not come to rest.
        """
        async with (
            running(self.site.environ, "run") as daemon,
            aiohttp.ClientSession() as http,
        ):
            url = await daemon.url()
            sampler = Sampler(daemon.process.pid, url, http, self.asking)
            await self._work(daemon, sampler, tell)
            await self._rest(sampler)
            self.at_rest = await sampler.look(self.samples[-1].at_s + self.rest_s, self._operations)
            self.tables = await sampler.tables()
            self._require(await daemon.stop() == 0, "the daemon did not end well")
            self._count_lines(daemon)
        await self._compare()

    @property
    def _operations(self) -> int:
        return len(self.site.network.ledger.history.payments_of(self.site.shop.account_id)) - 1

    async def _work(
        self, daemon: Program, sampler: Sampler, tell: Callable[[Sample], None]
    ) -> None:
        self.site.network.faults.enabled = True
        began = time.monotonic()
        ends = began + self.plan.minutes * 60
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._at(ends, lambda: 1 / self.plan.rate, self.traffic.visit))
            kill_every_s = self.plan.kill_every_s
            tasks.create_task(
                self._at(ends, lambda: self.rng.expovariate(1 / kill_every_s), self._kill)
            )

            async def look() -> None:
                assert daemon.process.returncode is None, daemon.said[-4000:]
                sample = await sampler.look(time.monotonic() - began, self._operations)
                self.samples.append(sample)
                self._count_lines(daemon)
                tell(sample)

            tasks.create_task(self._at(ends, lambda: self.plan.sample_s, look))

    async def _at(
        self, ends: float, wait_s: Callable[[], float], do: Callable[[], Awaitable[object]]
    ) -> None:
        """Do something again and again; one that took long does not make the next one late."""
        due = time.monotonic()
        while (due := due + wait_s()) < ends:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await do()

    async def _kill(self) -> None:
        """End one of the daemon's connections to the database, or all of them."""
        is_all = self.rng.random() < SHARE_OF_ALL_KILLS
        offset, limit = (0, 100) if is_all else (self.rng.randrange(6), 1)
        ended = await self.asking.rows(_KILL, offset, limit)
        self.blows["connections to the database ended"] += len(ended)

    def _count_lines(self, daemon: Program) -> None:
        """Count the log's events, and forget its lines."""
        for line in daemon.log:
            self.logged[str(line.get("event", line["text"][:80]))] += 1
        daemon.log.clear()
        del daemon.lines[:-200]

    async def _rest(self, sampler: Sampler) -> None:
        """Faults off, no new sessions; wait until nothing is open and nothing is to be told."""
        began = time.monotonic()
        self.blows["faults of Horizon"] = self.site.network.faults.struck.total()
        self.site.network.faults.stop()
        self.blows["faults of the merchant"] = self.merchant.faults
        self.merchant.fault_rate = 0
        limit_s = REST_S + self.plan.expires_in.total_seconds()
        async with asyncio.timeout(limit_s):
            await _until(self._is_at_rest)
            self.rest_s = time.monotonic() - began

            async def is_told() -> bool:
                """Whether the daemon's own figures know it: they are some seconds old."""
                return not (await sampler.look(0, self._operations)).outbox

            await _until(is_told)

    async def _is_at_rest(self) -> bool:
        self.traffic.pay_late()
        await self.asking.rows(_DUE_NOW)
        row = await self.asking.row(_OPEN)
        is_sent = not self.traffic.late and not self.site.network.ledger.pending()
        return is_sent and tuple(row) == (0, 0, self._operations)

    async def _compare(self) -> None:
        """Hold every session, credit and webhook against what the ledger says."""
        rows = await self.asking.rows(_SESSIONS)
        found = {id_: (status, received, held) for id_, status, received, held in rows}
        due = self.traffic.due()
        for id_ in found.keys() - due.keys() if self.traffic.lost else ():
            due[id_] = Due.unpaid()
        self._require(found.keys() == due.keys(), "other sessions than were opened")
        for id_, must in due.items():
            expected = (must.status, must.received, must.held)
            self._require(found.get(id_) == expected, f"{id_}: {found.get(id_)}, not {expected}")
        closed = self.traffic.closed()
        self._require(len(closed) == len(self.traffic.sent), "a payment never closed")
        operations = [tx.id + 1 for tx, _ in closed]
        credits_ = await self._column("SELECT operation_id FROM credits ORDER BY operation_id")
        self._require(credits_ == operations, "the credits are not the ledger's")
        states = await self._column("SELECT DISTINCT state FROM deliveries")
        self._require(states == ["delivered"], f"deliveries are {states}")
        self.merchant.note()
        events: list[UUID] = await self._column("SELECT id FROM events")
        lost = {str(id_) for id_ in events} ^ self.merchant.got.keys()
        self._require(not lost, f"{len(lost)} events that were never taken, or are of nobody")
        held = sum(must.held for must in due.values())
        unnamed = sum(sent.session is None for sent in self.traffic.sent)
        self._require(len(events) == len(due) + held + unnamed, f"{len(events)} events")
        report = await answer(self.site.environ, "audit")
        self._require(report["healthy"], f"the audit says {json.dumps(report)[:2000]}")

    async def _column(self, statement: LiteralString) -> list[Any]:
        return [row[0] for row in await self.asking.rows(statement)]

    def _require(self, holds: bool, problem: str) -> None:
        if not holds:
            self.wrong.append(problem)


async def _until(look: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is so: rows have no event."""
    while not await look():  # noqa: ASYNC110
        await asyncio.sleep(0.25)


async def _name_connections(engine: AsyncEngine) -> None:
    """Give this process's connections another name than the daemon's, whose are ended."""

    @event.listens_for(engine.sync_engine, "connect")
    def _name(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        connection.autocommit = True
        connection.cursor().execute("SET application_name = 'customers'")
        connection.autocommit = False

    await engine.dispose()  # those that have the other name already


def faults_of(rate: float, seed: int) -> FaultSettings:
    """Every fault of Horizon, all together at about that rate of the events on a stream."""
    each = rate / 7  # an event can meet seven of them
    rules = tuple(FaultRule(fault, each * _MOMENTS.get(fault, 1.0)) for fault in Fault)
    return FaultSettings(rules, seed, delay_s=0.5)


@asynccontextmanager
async def open_soak(database_url: str, plan: Plan, seed: int) -> AsyncIterator[Soak]:
    """A shop with customers, on a network that is going to be disturbed."""
    rng = Random(seed)
    async with AsyncExitStack() as stack:
        faults = faults_of(plan.fault_rate, seed)
        site = await stack.enter_async_context(open_site(database_url, LEDGER_S, faults))
        site.network.faults.enabled = False
        site = site.having(
            recover_interval="5", horizon_timeout="5", audit_interval="60", audit_window="300"
        )
        merchant = await stack.enter_async_context(Moody(Random(rng.random()), plan.fault_rate))
        names = ("--name", "Shop", "--account", site.shop.account_id)
        url = ("--webhook-url", f"{merchant.url}/hook")
        shop = await answer(site.environ, "merchant", "create", *names, *url)
        house = await stack.enter_async_context(open_house(config.load(site.environ)))
        await _name_connections(house.engine)
        customers = Random(rng.random())
        traffic = Traffic(
            site, house.checkout, UUID(shop["merchant_id"]), customers, plan.expires_in
        )
        asking = await stack.enter_async_context(Asking(database_url))
        yield Soak(replace(site, merchant=merchant), merchant, traffic, plan, rng, asking)

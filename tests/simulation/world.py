"""One run: everybody is put in place, things go wrong for a while, then all must come to rest.

The first phase is about safety: whatever happens, what must always hold holds after every COMMIT.
In the second nothing goes wrong any more, and everything has to come to rest within a bound. What
waits for a later time, such as the next attempt of a delivery, is not waited for: all clocks leap
to it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any, Final

import psycopg

from paywatch import config
from paywatch.sim import Merchant
from paywatch.store.engine import create_engine
from paywatch.wiring import House, furnish
from paywatch.wiring.outside import Outside
from simulation.book import Book, Diary
from simulation.checks import Checks
from simulation.instance import Clock, Instance
from simulation.loop import SimulatedLoop
from simulation.plan import LEDGER_S, Plan
from simulation.postgres import Gate
from simulation.process import Process, current
from simulation.rest import Rest
from simulation.shops import Shops
from simulation.town import Town, open_town
from simulation.traffic import Customers
from simulation.troubles import DAEMON, DatabaseTroubles, Supervisor
from simulation.wire import Wire
from simulation.words import Words

KEY: Final = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
DESK: Final = "desk"
REST_S: Final = 900  # everything must be at rest after so many seconds without faults
LOOK_S: Final = 5
MOST_LEAPS: Final = 12
SLOWEST_S: Final = 0.01  # a round trip to the database


@dataclass
class World:
    """Everything there is in one run."""

    plan: Plan
    loop: SimulatedLoop
    diary: Diary
    book: Book
    clock: Clock  # the world's own, which is right
    desk: Clock
    town: Town
    shops: Shops
    words: Words
    customers: Customers
    checks: Checks
    rest: Rest
    troubles: DatabaseTroubles
    supervisor: Supervisor

    async def run(self) -> None:
        """Play both phases; what is found wrong is in the diary."""
        closing = asyncio.create_task(self.town.keep_closing())
        try:
            await self._until_alarm(self._let_go_wrong())
            await self._until_alarm(self._come_to_rest())
        finally:
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)

    async def _until_alarm(self, phase: Any) -> None:
        """Play a phase, but end it at the first alarm."""
        if self.diary.wrong:
            phase.close()
            return
        playing = asyncio.create_task(phase)
        alarm = asyncio.create_task(self.diary.alarmed.wait())
        await asyncio.wait([playing, alarm], return_when=asyncio.FIRST_COMPLETED)
        for task in (playing, alarm):
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if not playing.cancelled():
            playing.result()

    async def _let_go_wrong(self) -> None:
        for merchant in self.plan.merchants:
            if merchant.joins_s == 0:
                await self.words.register(merchant)
        for instance in self.supervisor.instances:
            instance.start()
        self._let_faults(happen=True)
        tasks = [
            asyncio.create_task(self.supervisor.run()),
            asyncio.create_task(self._let_people_act(self.customers_act)),
            asyncio.create_task(self._let_people_act(self.words.act)),
            asyncio.create_task(self._let_join()),
        ]
        try:
            await asyncio.sleep(self.plan.minutes * 60)
            await tasks[3]
        finally:
            for task in tasks:
                task.cancel()
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(ended, Exception):
                    self.diary.alarm(f"the world itself broke: {ended!r}")
            self._let_faults(happen=False)
            self.diary.note("world", "nothing goes wrong any more")

    def _let_faults(self, *, happen: bool) -> None:
        self.town.let_fail(fail=happen)
        self.shops.is_ill = happen
        self.troubles.is_on = happen
        if not happen:
            self.town.garbled = 0.0
            self.town.recover()
            for instance in self.supervisor.instances:
                instance.clock.wrong = timedelta(0)

    async def customers_act(self) -> None:
        """Let customers do one thing."""
        self.customers.act()

    async def _let_people_act(self, act: Any) -> None:
        rng = Random(f"{self.plan.seed}/haste/{act.__qualname__}")
        while True:
            await asyncio.sleep(rng.expovariate(self.plan.haste / LEDGER_S))
            await act()

    async def _let_join(self) -> None:
        began = self.loop.time()
        for merchant in sorted(self.plan.merchants, key=lambda m: m.joins_s):
            if merchant.joins_s:
                await asyncio.sleep(max(0.0, began + merchant.joins_s - self.loop.time()))
                await self.words.register(merchant)

    async def _come_to_rest(self) -> None:
        for _ in range(MOST_LEAPS):
            later = await self._settle_down()
            if self.diary.wrong:
                return
            if later is None:
                break
            await self._leap(later)
        else:
            self.diary.alarm(f"not at rest after {MOST_LEAPS} leaps: {self.rest.restless()}")
        for problem in self.rest.problems():
            self.diary.alarm(f"at rest: {problem}")

    async def _settle_down(self) -> datetime | None:
        """Wait until all that is left waits for a later time: give it, or None if nothing does."""
        waited, restless = 0, self.rest.restless()
        while any(at is None or at <= self.clock() for _, at in restless):
            if waited >= REST_S:
                self.diary.alarm(f"not at rest after {REST_S} s: {restless}")
                return None
            await asyncio.sleep(LOOK_S)
            waited += LOOK_S
            restless = self.rest.restless()
        return max((at for _, at in restless if at is not None), default=None)

    async def _leap(self, to: datetime) -> None:
        """Let all clocks, the ledger's too, leap to a later time."""
        leap = to - self.clock() + timedelta(seconds=LEDGER_S)
        self.diary.note("world", f"leaps by {leap}")
        for clock in (self.clock, self.desk, *(i.clock for i in self.supervisor.instances)):
            clock.wrong += leap
        await self.town.close()


@dataclass(frozen=True)
class Kernel:
    """What a run stands on.

    Attributes:
        url: of an empty, migrated database.
        conn: to the same, for the checks: autocommit, and not through the gate.
    """

    loop: SimulatedLoop
    gate: Gate
    wire: Wire
    diary: Diary
    url: str
    conn: psycopg.Connection[Any]


@asynccontextmanager
async def open_world(plan: Plan, kernel: Kernel) -> AsyncIterator[World]:
    """Put everybody in place; nothing has happened yet, and no daemon runs."""
    diary, seed = kernel.diary, plan.seed
    book, clock, desk = Book(), Clock(kernel.loop), Clock(kernel.loop)
    async with AsyncExitStack() as stack:
        town = await stack.enter_async_context(open_town(plan, book, diary, clock))
        merchant = await stack.enter_async_context(Merchant())
        now = None if plan.troubles.jump else clock
        shops = Shops(merchant, book, diary, plan.answers, Random(f"{seed}/answers"), now)
        settings = _settings(plan, town, kernel.url)
        house = await stack.enter_async_context(_open_desk(settings, desk, f"{seed}/desk"))
        customers = Customers(town, book, Random(f"{seed}/customers"))
        rng = Random(f"{seed}/words")
        words = Words(house, town, shops, customers, book, diary, rng, plan.words)
        checks = Checks(kernel.conn, town.network.ledger, book, diary, clock)
        troubles = DatabaseTroubles(plan, diary)
        supervisor = Supervisor(plan, town, troubles, diary)
        supervisor.instances += _instances(plan, kernel, settings, supervisor)
        stack.push_async_callback(_end, supervisor)
        troubles.is_exempt = lambda name: name == DESK and words.is_registering
        kernel.gate.trouble = troubles.draw
        kernel.gate.on_commit = lambda _: checks.after_commit()
        kernel.gate.on_deadlock = lambda what: diary.alarm(f"a deadlock: {what}")
        yield World(
            plan=plan,
            loop=kernel.loop,
            diary=diary,
            book=book,
            clock=clock,
            desk=desk,
            town=town,
            shops=shops,
            words=words,
            customers=customers,
            checks=checks,
            rest=Rest(kernel.conn, book, shops, checks, plan.reads_in_order),
            troubles=troubles,
            supervisor=supervisor,
        )


def _instances(
    plan: Plan, kernel: Kernel, settings: dict[str, str], supervisor: Supervisor
) -> list[Instance]:
    return [
        Instance(
            f"{DAEMON}{number}",
            settings,
            f"{plan.seed}/{number}",
            gate=kernel.gate,
            wire=kernel.wire,
            trace=kernel.diary.trace,
            on_end=supervisor.ended,
        )
        for number in range(plan.instances)
    ]


async def _end(supervisor: Supervisor) -> None:
    """Stop every daemon as an operator would."""
    supervisor.is_over = True
    for instance in supervisor.instances:
        if instance.is_running:
            await instance.stop()


@asynccontextmanager
async def _open_desk(settings: dict[str, str], clock: Clock, seed: str) -> AsyncIterator[House]:
    """A process for the merchants' commands."""
    rng = Random(seed)
    token = current.set(Process(DESK))
    loaded = config.load(settings)
    engine = create_engine(settings["PAYWATCH_DATABASE_URL"])
    outside = Outside(clock, asyncio.get_running_loop().time, rng, rng.randbytes)
    try:
        async with furnish(loaded, engine, outside) as house:
            yield house
    finally:
        await engine.dispose()
        current.reset(token)


def _settings(plan: Plan, town: Town, url: str) -> dict[str, str]:
    return {
        "PAYWATCH_DATABASE_URL": url,
        "PAYWATCH_SECRET_KEY": KEY,
        "PAYWATCH_HORIZON_URL": town.urls,
        "PAYWATCH_NETWORK_PASSPHRASE": town.network.passphrase,
        "PAYWATCH_HORIZON_HOURLY_REQUESTS": "100000",
        "PAYWATCH_ALLOW_PRIVATE_WEBHOOKS": "true",
        "PAYWATCH_LISTEN_MODE": plan.listen_mode,
        "PAYWATCH_RECOVER_INTERVAL": str(plan.recover_interval_s),
        "PAYWATCH_PROCESSING_TIMEOUT": str(plan.processing_s),
        "PAYWATCH_AUDIT_INTERVAL": str(plan.audit_interval_s),
        "HOME": "/nonexistent",
    }

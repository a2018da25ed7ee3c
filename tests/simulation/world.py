"""One run: everybody is put in place, things go wrong for a while, then all must come to rest.

The first phase is about safety: whatever happens, what must always hold holds after every COMMIT.
In the second nothing goes wrong any more, and everything has to come to rest within a bound. What
waits for a later time, such as the next attempt of a delivery, is not waited for: all clocks leap
to it.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any, Final

from paywatch.domain.ledger import Position
from simulation.book import Book, Diary
from simulation.checks import Checks
from simulation.instance import Clock
from simulation.loop import SimulatedLoop
from simulation.plan import LEDGER_S, Plan
from simulation.rest import Rest
from simulation.shops import Shops
from simulation.town import Town
from simulation.traffic import Customers
from simulation.troubles import DatabaseTroubles, Supervisor
from simulation.words import Words

REST_S: Final = 900  # everything must be at rest after so many seconds without faults
LOOK_S: Final = 5
MOST_LEAPS: Final = 12


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
            await self._until_alarm(self._let_go_wrong(), self.plan.minutes * 60 + REST_S)
            await self._until_alarm(self._come_to_rest(), MOST_LEAPS * REST_S)
        finally:
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)

    async def _until_alarm(self, phase: Any, longest_s: float) -> None:
        """Play a phase, but end it at the first alarm, or if it takes far too long."""
        if self.diary.wrong:
            phase.close()
            return
        playing = asyncio.create_task(phase)
        alarm = asyncio.create_task(self.diary.alarmed.wait())
        done, _ = await asyncio.wait(
            [playing, alarm], timeout=longest_s, return_when=asyncio.FIRST_COMPLETED
        )
        if not done:
            self.diary.alarm(f"a phase has not ended after {longest_s} s")
        if playing in done and playing.cancelled():
            self.diary.alarm("a phase was broken off")
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
            if any(task.done() for task in tasks[1:3]):
                self.diary.alarm("nobody acted any more")
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
            await to_its_end(act())

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
        await self._audit()

    async def _audit(self) -> None:
        """Let paywatch compare all of the ledger with its credits by itself."""
        auditor = self.words.house.auditor()
        readings = await auditor.readings(Position(0), await self.words.house.source.tip())
        report = await auditor.audit(readings, settle=False)
        if not report.healthy:
            self.diary.alarm(f"at rest: the audit says {report}")

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


async def to_its_end(act: Coroutine[Any, Any, None]) -> None:
    """Do all of what was begun, and only then be canceled: else nobody knows that it was done."""
    acting = asyncio.create_task(act)
    try:
        await asyncio.shield(acting)
    except asyncio.CancelledError:
        await acting
        raise

"""What befalls the daemons, their database and the network: drawn by rates, until it is over."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from random import Random
from typing import Final

from paywatch.service.watchdog import NothingHelps
from simulation.book import Diary
from simulation.instance import Instance
from simulation.plan import Plan
from simulation.steps import Kind, Step, Trouble
from simulation.town import Town

DAEMON: Final = "daemon"  # their names begin so
LONGEST_AWAY_S: Final = 90
LONGEST_FREEZE_S: Final = 40
LARGEST_JUMP_S: Final = 240  # less than the patience of the check of leases
RESTART_S: Final = 20.0
VOIDING: Final = frozenset({Trouble.SERIALIZATION, Trouble.DEADLOCK})


class DatabaseTroubles:
    """Says what happens to each round trip; see `Gate.trouble`.

    Attributes:
        is_on: whether anything happens.
        is_exempt: whether a process must be left in peace now.
    """

    def __init__(self, plan: Plan, diary: Diary) -> None:
        self.is_on = False
        self.is_exempt: Callable[[str], bool] = lambda _name: False
        self._diary = diary
        self._rng = Random(f"{plan.seed}/database")
        rates = plan.database
        self._anywhere = [
            (Trouble.LOST_BEFORE, rates.lost_before),
            (Trouble.LOST_AFTER, rates.lost_after),
        ]
        self._in_statement = [
            (Trouble.SERIALIZATION, rates.serialization / 4),
            (Trouble.DEADLOCK, rates.deadlock),
        ]
        self._at_commit = [
            (Trouble.LOST_BEFORE, rates.lost_before_commit),
            (Trouble.LOST_AFTER, rates.lost_after_commit),
            (Trouble.SERIALIZATION, rates.serialization),
        ]
        self._until_crash: int | None = None

    def crash_soon(self, steps: int) -> None:
        """Kill a daemon in so many round trips, in the middle of the one that comes then."""
        self._until_crash = steps

    def draw(self, step: Step) -> Trouble | None:
        """Draw what happens; every kind is drawn for, so that one moves no other's draws."""
        kinds = self._kinds(step)
        drawn = [(trouble, self._rng.random() < rate) for trouble, rate in kinds]
        if not step.is_in_transaction:  # there is nothing that could be void
            drawn = [(trouble, hit) for trouble, hit in drawn if trouble not in VOIDING]
        if not self.is_on or self.is_exempt(step.process.name):
            return None
        found = self._crash(step) or next((trouble for trouble, hit in drawn if hit), None)
        if found is not None:
            what = "commit" if step.kind is Kind.COMMIT else "statement"
            self._diary.fault(step.process.name, f"{found}_{what}")
        return found

    def _kinds(self, step: Step) -> list[tuple[Trouble, float]]:
        if step.kind is Kind.COMMIT:
            return self._at_commit
        if step.kind is Kind.STATEMENT:
            return [*self._anywhere, *self._in_statement]
        return self._anywhere

    def _crash(self, step: Step) -> Trouble | None:
        if self._until_crash is None or not step.process.name.startswith(DAEMON):
            return None
        self._until_crash -= 1
        if self._until_crash > 0:
            return None
        self._until_crash = None
        return self._rng.choice((Trouble.CRASH_BEFORE, Trouble.CRASH_AFTER))


class Supervisor:
    """Starts what has ended, as systemd does, and lets troubles happen."""

    def __init__(self, plan: Plan, town: Town, database: DatabaseTroubles, diary: Diary) -> None:
        self.instances: list[Instance] = []
        self._plan = plan
        self._town = town
        self._database = database
        self._diary = diary
        self._rng = Random(f"{plan.seed}/troubles")
        self._restarts: set[asyncio.Task[None]] = set()
        self.is_over = False

    def ended(self, instance: Instance) -> None:
        """Start an instance again in a while, whatever ended it."""
        error = instance.ended_by
        if error is not None and not _is_lawful(error):
            self._diary.alarm(f"{instance.name} ended by itself: {error!r}")
        if not self.is_over:
            wait_s = self._rng.uniform(0.1, RESTART_S)
            restart = asyncio.create_task(self._restart(instance, wait_s))
            self._restarts.add(restart)
            restart.add_done_callback(self._restarts.discard)

    async def _restart(self, instance: Instance, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        await instance.gone()
        if not self.is_over and not instance.is_running:
            instance.start()

    async def run(self) -> None:
        """Let everything happen at its rate, until canceled."""
        troubles = self._plan.troubles
        kinds: list[tuple[float, Callable[[], Awaitable[None]]]] = [
            (troubles.crash, self._crash),
            (troubles.crash_at_statement, self._crash_at_statement),
            (troubles.stop, self._stop),
            (troubles.freeze, self._freeze),
            (troubles.jump, self._jump),
            (troubles.away, self._go_away),
            (troubles.change, self._change),
            (troubles.hide, self._town.hide),
        ]
        self._town.garbled = troubles.garble / 12  # ledgers a minute
        async with asyncio.TaskGroup() as group:
            for number, (rate, trouble) in enumerate(kinds):
                if rate:
                    rng = Random(f"{self._plan.seed}/trouble/{number}")
                    group.create_task(self._repeat(rng, rate, trouble))

    async def _repeat(
        self, rng: Random, rate: float, trouble: Callable[[], Awaitable[None]]
    ) -> None:
        while True:
            await asyncio.sleep(rng.expovariate(rate / 60))
            await trouble()

    def _any(self) -> Instance:
        return self._rng.choice(self.instances)

    async def _crash(self) -> None:
        instance = self._any()
        if instance.is_running:
            self._diary.fault("supervisor", "crash")
            instance.crash()

    async def _crash_at_statement(self) -> None:
        self._database.crash_soon(self._rng.randint(1, 40))

    async def _stop(self) -> None:
        instance = self._any()
        if instance.is_running:
            self._diary.fault("supervisor", "stop")
            await instance.stop()

    async def _freeze(self) -> None:
        instance, seconds = self._any(), self._rng.uniform(0.5, LONGEST_FREEZE_S)
        if instance.is_running:
            self._diary.fault("supervisor", "freeze")
            instance.freeze(seconds)

    async def _jump(self) -> None:
        wrong = timedelta(seconds=self._rng.uniform(-LARGEST_JUMP_S, LARGEST_JUMP_S))
        self._diary.fault("supervisor", "jump", str(wrong))
        self._any().clock.wrong = wrong

    async def _go_away(self) -> None:
        await self._town.go_away(self._rng.uniform(1, LONGEST_AWAY_S))

    async def _change(self) -> None:
        self._town.change()


def _is_lawful(error: BaseException) -> bool:
    """Whether it is the one error that a daemon raises to be started again."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_lawful(inner) for inner in error.exceptions)
    return isinstance(error, NothingHelps)

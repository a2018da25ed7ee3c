"""paywatch is killed at every point that it passes, and must come to the same every time."""

import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.crashes.children import Child, Children, open_nursery
from support.crashes.probe import Plan
from support.crashes.scenes import DAEMON, FOLLOWING, SCENES, Scene
from support.crashes.town import Town, open_town

UNOWNED = ("horizon:", "post:")  # points beside any transaction
PATIENCE_S = 3.0
KILLED_AT_RANDOM = ("killed", "a random moment")


@dataclass
class Figures:
    """What was done, and what came of it.

    Attributes:
        blows: how often each was struck: by scene, kind and point.
        started: processes, with those that put things right.
        webhooks: that came, and to how many events; those told again, by the same id.
        different: what was not as it must be, behind which blow.
    """

    blows: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    started: int = 0
    credits: int = 0
    webhooks: int = 0
    events: int = 0
    different: list[str] = field(default_factory=list)


@dataclass
class Trial:
    """The processes and the world around them."""

    children: Children
    town: Town
    figures: Figures = field(default_factory=Figures)
    _blow: str = "nothing"
    _repairs_due: bool = False

    async def points_of(self, scene: Scene) -> set[str]:
        """Play a scene undisturbed; gives the points of what it wrote, and those beside."""
        played = child = await self.play(scene, Plan(armed=scene.meanwhile is None))
        self._blow, self._repairs_due = f"{scene.name}, undisturbed", scene.leaves_repairs
        if scene.ends_by_itself:
            assert await played.ended() == 0, played.log.read_text()
            child = await self.daemon()
        else:
            await played.said(scene.last)
        await self.rests(child)
        points = writing(played)  # without those of the stop: no blow waits for one
        await self.stop(child)
        return points

    async def kill_at(self, scene: Scene, point: str) -> set[str]:
        """Play a scene until its process is killed at a point; gives the points that it passed."""
        child = await self.play(scene, Plan(point, armed=scene.meanwhile is None))
        if not scene.has(point):  # it may not come by there this time
            await child.killed_within(PATIENCE_S)
        code = await child.ended()
        assert child.reached or not scene.has(point), f"never at {point}\n{child.log.read_text()}"
        assert code == -signal.SIGKILL or not child.reached
        await self.struck(scene, *(("killed", point) if child.reached else KILLED_AT_RANDOM))
        return writing(child)

    async def play(self, scene: Scene, plan: Plan) -> Child:
        """Let a daemon put right what the last blow left; look at it; then begin a scene."""
        if scene.meanwhile is None:
            await self.rest()
            args = await scene.prepare(self.town)
            self.figures.started += 1
            environ = self.town.environ | dict(scene.settings)
            return await self.children.start(environ, *args, plan=plan)
        child = await self.daemon(plan)
        await self.rests(child)
        await child.arm()
        await scene.meanwhile(self.town)
        return child

    async def rest(self) -> None:
        """Let a daemon put right what the last blow left, look at it, and kill the daemon."""
        child = await self.daemon()
        await self.rests(child)
        await child.kill()

    async def struck(self, scene: Scene, blow: str, point: str) -> None:
        """A blow was struck: count it, and name it with whatever is found behind it."""
        self.figures.blows[scene.name, blow, point] += 1
        self._blow = f"{scene.name}, {blow} at {point}"
        self._repairs_due = scene.leaves_repairs
        await self.town.expire_leases()

    async def daemon(self, plan: Plan | None = None) -> Child:
        """Start a daemon with the usual settings."""
        plan = plan or Plan(armed=False)
        self.figures.started += 1
        return await self.children.start(self.town.environ, *DAEMON, plan=plan)

    async def stop(self, child: Child) -> None:
        """Stop a daemon; it must end well."""
        assert await child.stop() == 0, child.log.read_text()

    async def rests(self, child: Child) -> None:
        """Wait until all is at rest, and look at it."""
        try:
            await self.town.rests()
        except AssertionError as error:
            raise AssertionError(f"{self._blow}: {error}\n{child.log.read_text()}") from None
        found, repaired = await self.town.differences(), repairs(child)
        if not self._repairs_due:
            found += repaired[child.repairs_seen :]
        child.repairs_seen = len(repaired)
        self.figures.different += [f"{self._blow}: {one}" for one in found]
        self.figures.events = len(self.town.webhooks)
        self.figures.webhooks = self.town.webhooks.total()
        self.figures.credits = self.town.credits


def repairs(child: Child) -> list[str]:
    """What recovery and the audit had to set right: a crash may leave nothing but leases."""
    lines = [json.loads(line) for line in child.log.read_text().split("\n")[:-1] if line[0] == "{"]
    return [
        f"recovery repaired {line['repair']}"
        for line in lines
        if line.get("event") == "repaired" and line["repair"] != "lease"
    ]


def writing(child: Child) -> set[str]:
    """The points of transactions that write, and those beside any transaction."""
    return {
        point
        for point in child.passed
        if point.startswith(UNOWNED) or point.partition(":")[0] in child.writes
    }


async def kill_at_every_point(trial: Trial, scene: Scene) -> None:
    """Kill a scene's process once at each of its points, also those that show up on the way.

    Raises:
        AssertionError: a point belongs to no scene, so nothing would be killed at it; or what
            belongs to this one was not passed.
    """
    seen, done = await trial.points_of(scene), set[str]()
    while todo := sorted(point for point in seen if scene.has(point) and point not in done):
        nobodys = [point for point in seen if not any(one.has(point) for one in SCENES)]
        assert not nobodys, f"points that belong to no scene: {nobodys}"
        for point in todo:
            seen |= await trial.kill_at(scene, point)
            done.add(point)
    await trial.rest()
    ended = {point.partition(":")[0] for point in done} | done
    assert set(scene.owns) <= ended, f"points not passed: {set(scene.owns) - ended}"


@asynccontextmanager
async def open_trial(database_url: str, directory: Path) -> AsyncIterator[Trial]:
    """Make a town in a migrated database, and let its shop have a little history."""
    async with open_town(database_url) as town, open_nursery(directory) as children:
        trial = Trial(children, town)
        await (await trial.play(FOLLOWING, Plan(armed=False))).kill()
        await trial.rest()
        yield trial

"""Blows that a daemon survives: its PostgreSQL is killed, or it is frozen, at a named point.

The process stops itself there (SIGSTOP), so that what befalls the others does so at that moment.
"""

import asyncio
import signal
from collections.abc import Callable
from random import Random

from support.crashes.children import Child
from support.crashes.probe import Plan
from support.crashes.scenes import Scene
from support.crashes.trial import KILLED_AT_RANDOM, Trial

LONGEST_S = 1.0  # in which a process is killed at random: about what settling and telling take


async def kill_at_random(trial: Trial, scene: Scene, rng: Random) -> None:
    """Kill a scene's process at any moment of its first second; or it has ended before."""
    child = await trial.play(scene, Plan(armed=scene.meanwhile is None))
    await child.killed_within(rng.uniform(0, LONGEST_S))
    await trial.struck(scene, *KILLED_AT_RANDOM)


async def crash_server_at(
    trial: Trial, scene: Scene, point: str, crash: Callable[[], None]
) -> None:
    """Let PostgreSQL crash while the daemon is at a point; the daemon has to go on by itself."""
    child = await stopped_at(trial, scene, point)
    await asyncio.to_thread(crash)
    child.thaw()
    await trial.struck(scene, "PostgreSQL crashed", point)
    await trial.rests(child)
    await trial.stop(child)


async def freeze_at(trial: Trial, scene: Scene, point: str, seconds: float | None) -> None:
    """Freeze a daemon at a point, while another one begins to work.

    Args:
        trial: whose daemon.
        scene: what it does.
        point: where it is stopped.
        seconds: how long; None until the other one has taken over and done all that was left.
    """
    frozen = await stopped_at(trial, scene, point)
    other = await trial.daemon()
    if seconds is None:
        await trial.town.expire_leases()
        await trial.rests(other)
    else:
        await asyncio.sleep(seconds)
    frozen.thaw()
    await trial.struck(scene, "frozen shortly" if seconds else "frozen long", point)
    await trial.rests(other)
    for child in (frozen, other):
        await trial.stop(child)


async def stopped_at(trial: Trial, scene: Scene, point: str) -> Child:
    """Play a scene until its process has stopped itself at a point."""
    armed = scene.meanwhile is None
    child = await trial.play(scene, Plan(point, number=signal.SIGSTOP, armed=armed))
    await child.froze()
    assert child.reached, f"{scene.name}: never at {point}\n{child.log.read_text()}"
    return child

"""Blows at every named point of a running paywatch, and what came of them.

Its processes are killed at each point of each scene, and at random moments; PostgreSQL is killed
beneath them, and they are frozen, at each point of settling and telling. Behind each blow a daemon
puts right what was left, and the database, the ledger and the merchant's requests are compared.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from random import Random

from rich.console import Console
from rich.table import Table

from support.crashes.blows import crash_server_at, freeze_at, kill_at_random
from support.crashes.scenes import FOLLOWING, READING, SCENES, TELLING, Scene
from support.crashes.trial import Figures, Trial, open_trial
from support.databases import Cluster, open_cluster

DAEMONS = (FOLLOWING, READING, TELLING)  # whose server is killed, too
SHORT_S = 0.5  # below every limit of a connection
LONG_S = 7.0  # beyond those of a transaction that waits (5 s) and of a leader (3 s)
BEYOND_LEASES = (  # where a frozen one holds what another needs
    (FOLLOWING, "settle.settle_and_commit: before COMMIT"),
    (TELLING, "dispatch.claim: behind COMMIT"),
    (TELLING, "post: head read"),
    (TELLING, "attempts.record: before COMMIT"),
)


async def run(cluster: Cluster, times: int, at_random: int, seed: int) -> Figures:
    """Strike every blow so many times."""
    rng = Random(seed)
    with tempfile.TemporaryDirectory() as directory:
        async with open_trial(cluster.create("town"), Path(directory)) as trial:
            points = {scene.name: await trial.points_of(scene) for scene in SCENES}
            for _ in range(times):
                for scene in SCENES:
                    for point in _shuffled(points[scene.name], rng):
                        points[scene.name] |= await trial.kill_at(scene, point)
                    _say(trial)
                for scene in DAEMONS:
                    await _crash_servers(trial, scene, points[scene.name], cluster, rng)
                    await _freeze(trial, scene, points[scene.name], rng)
                    _say(trial)
                for scene, point in BEYOND_LEASES:
                    await freeze_at(trial, scene, point, None)
            for _ in range(at_random):
                await kill_at_random(trial, rng.choice(SCENES), rng)
            await trial.rest()
            return trial.figures


async def _crash_servers(
    trial: Trial, scene: Scene, points: set[str], cluster: Cluster, rng: Random
) -> None:
    """At each of the scene's own points, in one of two ways."""
    for point in _shuffled({point for point in points if scene.has(point)}, rng):
        crash = rng.choice([cluster.cut_power, lambda: cluster.kill_backend("town")])
        await crash_server_at(trial, scene, point, crash)


async def _freeze(trial: Trial, scene: Scene, points: set[str], rng: Random) -> None:
    for point in _shuffled({point for point in points if scene.has(point)}, rng):
        await freeze_at(trial, scene, point, rng.choice([SHORT_S, SHORT_S, SHORT_S, LONG_S]))


def _shuffled(points: set[str], rng: Random) -> list[str]:
    return rng.sample(sorted(points), len(points))


def _say(trial: Trial) -> None:
    struck, different = trial.figures.blows.total(), len(trial.figures.different)
    Console(stderr=True).print(f"{struck} blows, {different} differences")


def show(figures: Figures, seed: int, took_s: float) -> None:
    """Print what was done, and what came of it."""
    table = Table(title=f"Blows at named points (seed {seed})")
    for heading in ("scene", "blow", "points", "times"):
        table.add_column(heading, justify="left" if heading in {"scene", "blow"} else "right")
    kinds = Counter((scene, blow) for scene, blow, _ in figures.blows)
    times = Counter[tuple[str, str]]()
    for (scene, blow, _), count in figures.blows.items():
        times[scene, blow] += count
    for (scene, blow), points in kinds.items():
        table.add_row(scene, blow, f"{points:,}", f"{times[scene, blow]:,}")
    console = Console()
    console.print(table)
    console.print(
        f"{figures.blows.total():,} blows, {figures.started:,} processes started;"
        f" {figures.credits:,} credits, {figures.events:,} events,"
        f" {figures.webhooks:,} webhooks; {took_s:,.0f} s"
    )
    console.print(f"{len(figures.different)} differences")
    for one in figures.different:
        console.print(one, markup=False)


def document(figures: Figures, seed: int, took_s: float) -> dict[str, object]:
    """The same as a JSON document."""
    blows = [
        {"scene": scene, "blow": blow, "point": point, "times": times}
        for (scene, blow, point), times in sorted(figures.blows.items())
    ]
    return asdict(figures) | {"blows": blows, "seed": seed, "seconds": round(took_s, 1)}


def main() -> None:
    """Run it, print the figures, and exit with 1 if anything is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=1, help="how often at each point")
    parser.add_argument("--random", type=int, default=100, help="kills at random moments")
    parser.add_argument("--seed", type=int, default=20_261_121, help="of everything random")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    options = parser.parse_args()
    began = time.monotonic()
    with open_cluster() as cluster:
        figures = asyncio.run(run(cluster, options.times, options.random, options.seed))
    took_s = time.monotonic() - began
    show(figures, options.seed, took_s)
    if options.json:
        options.json.write_text(
            json.dumps(document(figures, options.seed, took_s), indent=2) + "\n"
        )
    sys.exit(bool(figures.different))


if __name__ == "__main__":
    main()

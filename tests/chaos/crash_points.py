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
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
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
    (TELLING, "post: before"),
    (TELLING, "post: head read"),
    (TELLING, "attempts.record: before COMMIT"),
)


@dataclass(frozen=True)
class Wanted:
    """What to do.

    Attributes:
        times: how often at each point.
        at_random: kills at random moments.
        minutes: when to end although not all has been done.
    """

    times: int
    at_random: int
    seed: int
    minutes: float


async def run(cluster: Cluster, wanted: Wanted) -> tuple[Figures, int]:
    """Strike the blows, in an order that is drawn; gives also how many were planned."""
    rng, ends_at = Random(wanted.seed), time.monotonic() + wanted.minutes * 60
    with tempfile.TemporaryDirectory() as directory:
        async with open_trial(cluster.create("town"), Path(directory)) as trial:
            points = {scene: await trial.points_of(scene) for scene in SCENES}
            blows = [*planned(trial, points, cluster, rng)] * wanted.times
            blows += [partial(kill_at_random, trial, scene, rng) for scene in SCENES] * (
                wanted.at_random // len(SCENES)
            )
            rng.shuffle(blows)
            for number, blow in enumerate(blows, 1):
                if time.monotonic() > ends_at:
                    break
                await blow()
                if number % 25 == 0:
                    different = len(trial.figures.different)
                    Console(stderr=True).print(f"{number} blows, {different} differences")
            await trial.rest()
            return trial.figures, len(blows)


def planned(
    trial: Trial, points: Mapping[Scene, set[str]], cluster: Cluster, rng: Random
) -> Iterator[Callable[[], Awaitable[object]]]:
    """Every blow at a point, once: kills everywhere, the others at the points of daemons."""
    for scene in SCENES:
        for point in sorted(points[scene]):
            yield partial(trial.kill_at, scene, point)
    kill_backend = partial(cluster.kill_backend, "town")
    for scene in DAEMONS:
        for point in sorted(point for point in points[scene] if scene.has(point)):
            ways: list[Callable[[], None]] = [cluster.cut_power, kill_backend]
            crash = rng.choice(ways)
            yield partial(crash_server_at, trial, scene, point, crash)
            seconds = rng.choice([SHORT_S, SHORT_S, SHORT_S, LONG_S])
            yield partial(freeze_at, trial, scene, point, seconds)
    for scene, point in BEYOND_LEASES:
        yield partial(freeze_at, trial, scene, point, None)


def show(figures: Figures, plan: int, seed: int, took_s: float) -> None:
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
        f"{figures.blows.total():,} of {plan:,} blows, {figures.started:,} processes started;"
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
    parser.add_argument("--minutes", type=float, default=120, help="no longer than this")
    parser.add_argument("--seed", type=int, default=20_261_121, help="of everything random")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    options = parser.parse_args()
    began = time.monotonic()
    wanted = Wanted(options.times, options.random, options.seed, options.minutes)
    with open_cluster() as cluster:
        figures, plan = asyncio.run(run(cluster, wanted))
    took_s = time.monotonic() - began
    show(figures, plan, options.seed, took_s)
    if options.json:
        options.json.write_text(
            json.dumps(document(figures, options.seed, took_s), indent=2) + "\n"
        )
    sys.exit(bool(figures.different))


if __name__ == "__main__":
    main()

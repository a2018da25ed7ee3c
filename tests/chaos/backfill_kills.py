"""`kill -9` of a backfill at random points: the rows are those of one that nobody disturbed.

Every fourth round has two backfills of the same range at once; in every fifth, PostgreSQL itself is
killed once beneath the backfill.
"""

import argparse
import asyncio
import sys
import time
from random import Random

from rich.console import Console
from rich.table import Table

from support.backfills import Figures, open_trial
from support.databases import Cluster, open_cluster

MOST_IN_A_ROUND = 5


async def run(cluster: Cluster, *, times: int, operations: int, seed: int) -> Figures:
    """Kill so many times, in as many rounds as it takes."""
    rng = Random(seed)
    async with open_trial(cluster, operations, rng) as trial:
        figures = trial.figures
        while figures.kills < times:
            kills = min(rng.randint(1, MOST_IN_A_ROUND), times - figures.kills)
            at_once = 2 if figures.rounds % 4 == 3 else 1
            await trial.run_round(kills, at_once=at_once, kill_server=figures.rounds % 5 == 4)
            Console(stderr=True).print(f"{figures.kills} of {times} kills")
        return figures


def show(figures: Figures, seed: int, took_s: float) -> None:
    """Print what happened."""
    table = Table(title=f"Killed backfills (seed {seed})", show_header=False)
    rows = {
        "operations in the ledger": figures.operations,
        "kill -9 of a backfill": figures.kills,
        "kill -9 of PostgreSQL beneath one": figures.servers_killed,
        "processes started": figures.starts,
        "rounds, each from the beginning to the end": figures.rounds,
        "of these with two backfills at once": figures.two_at_once,
        "different positions that the cursor stood at": len(figures.places),
        "rounds that differ from an undisturbed backfill": figures.rounds_different,
        "seconds": round(took_s),
    }
    for name, value in rows.items():
        table.add_row(name, f"{value:,}")
    Console().print(table)
    for name, count in figures.different.items():
        Console().print(f"{name}: differ in {count} rounds")


def main() -> None:
    """Run it, print the figures, and exit with 1 if any round came to other rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=50, help="how often to kill")
    parser.add_argument("--operations", type=int, default=3000, help="in the ledger")
    parser.add_argument("--seed", type=int, default=20_261_120, help="of everything random")
    options = parser.parse_args()
    began = time.monotonic()
    with open_cluster() as cluster:
        figures = asyncio.run(
            run(cluster, times=options.times, operations=options.operations, seed=options.seed)
        )
    show(figures, options.seed, time.monotonic() - began)
    sys.exit(bool(figures.different))


if __name__ == "__main__":
    main()

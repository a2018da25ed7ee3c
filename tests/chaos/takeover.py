"""How long a stream is without a leader: two daemons, a ledger with payments, and blows.

The leader is killed (SIGKILL), frozen (SIGSTOP, then SIGCONT), or cut off from the database, which
hears nothing of it, not even its end. At last all payments must be settled exactly once.
"""

import argparse
import asyncio
import statistics
import sys
from random import Random

from rich.console import Console
from rich.table import Table

from support.databases import open_cluster
from support.takeovers import Blow, open_rivals

GOALS_S = {Blow.KILL: 2.0, Blow.FREEZE: 10.0, Blow.CUT: 10.0}


async def run(database_url: str, times: int, seed: int) -> tuple[dict[Blow, list[float]], int]:
    """Strike so many times in each way; gives the seconds of each takeover, and the payments."""
    took: dict[Blow, list[float]] = {blow: [] for blow in Blow}
    async with open_rivals(database_url, Random(seed)) as rivals:
        for _ in range(times):
            for blow in Blow:
                took[blow].append(await rivals.strike(blow))
        await rivals.finish()
        return took, rivals.paid


def show(took: dict[Blow, list[float]], paid: int) -> None:
    """Print the figures, from the blow to the first batch that the other one committed."""
    table = Table(title="Seconds without a leader")
    for heading in ("the leader was", "times", "median", "worst", "goal"):
        table.add_column(heading, justify="left" if heading.startswith("the") else "right")
    for blow, seconds in took.items():
        figures = (statistics.median(seconds), max(seconds), GOALS_S[blow])
        table.add_row(blow, str(len(seconds)), *(f"{figure:.2f}" for figure in figures))
    console = Console()
    console.print(table)
    console.print(f"{paid} payments, each settled once, each told by one event; audit healthy")


def main() -> None:
    """Run it, print the figures, and exit with 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=5, help="how often in each way")
    parser.add_argument("--seed", type=int, default=20_261_120, help="of the moments")
    options = parser.parse_args()
    with open_cluster() as cluster:
        took, paid = asyncio.run(run(cluster.create("rivals"), options.times, options.seed))
    show(took, paid)
    sys.exit(any(max(took[blow]) > GOALS_S[blow] for blow in Blow))


if __name__ == "__main__":
    main()

"""Every Horizon away for a simulated day with payments going on, then back, two of three ailing."""

import argparse
import asyncio
import sys
from random import Random

from rich.console import Console
from rich.table import Table

from support.databases import Cluster, open_cluster
from support.outages import Figures, open_outage


async def run(cluster: Cluster, sessions: int, seed: int) -> Figures:
    """Run it once."""
    async with open_outage(cluster, sessions, Random(seed)) as outage:
        return await outage.run()


def show(figures: Figures, seed: int) -> None:
    """Print what happened."""
    table = Table(title=f"A day without Horizon (seed {seed})", show_header=False)
    rows: dict[str, int | float] = {
        "ledgers closed": figures.ledgers,
        "payments to the watched accounts": figures.payments,
        "of these while Horizon was away": figures.closed_while_away,
        "seconds that the day took": figures.away_s,
        "seconds from its return until all were settled": figures.catch_up_s,
        "seconds until every session was decided": figures.decided_s,
        "payments settled a second": figures.closed_while_away / figures.catch_up_s,
        **{f"sessions {status}": count for status, count in sorted(figures.statuses.items())},
        "late payments held": figures.late,
        **{f"requests to the instance that {name}": n for name, n in figures.requests.items()},
        "sessions or payments that are not as planned": len(figures.wrong),
    }
    for name, value in rows.items():
        table.add_row(name, f"{value:,.1f}" if isinstance(value, float) else f"{value:,}")
    Console().print(table)
    for problem in figures.wrong[:20]:
        Console().print(problem)


def main() -> None:
    """Run it, print the figures, and exit with 1 if anything is not as planned."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=20_261_120)
    options = parser.parse_args()
    with open_cluster() as cluster:
        figures = asyncio.run(run(cluster, options.sessions, options.seed))
    show(figures, options.seed)
    sys.exit(bool(figures.wrong))


if __name__ == "__main__":
    main()

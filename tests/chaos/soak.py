"""A daemon at a steady rate with faults, for as long as you like: does anything grow or stay over?

Real processes: the daemon with all its roles, and PostgreSQL. Sessions are opened and paid in every
way there is, Horizon and the merchant fail now and then, and connections to the database are ended.
At the end the faults stop, everything comes to rest, and every session, credit and webhook is held
against the ledger.
"""

import argparse
import asyncio
import json
import logging
import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from support.databases import open_cluster
from support.soak_report import Report
from support.soak_samples import Sample
from support.soaking import Plan, open_soak


async def run(database_url: str, plan: Plan, seed: int) -> Report:
    """Run it once, and say on stderr how it goes."""
    async with open_soak(database_url, plan, seed) as soak:
        await soak.run(_tell)
    return Report.of(soak, seed)


def _tell(sample: Sample) -> None:
    shown = " ".join(f"{name}={value:g}" for name, value in asdict(sample).items())
    print(f"{datetime.now(UTC):%H:%M:%S} {shown}", file=sys.stderr, flush=True)  # noqa: T201


def show(report: Report) -> None:
    """Print what it came to."""
    table = Table(title=f"{report.plan.minutes:g} minutes (seed {report.seed})", show_header=False)
    for name, value in report.figures.items():
        table.add_row(name, f"{value:,.1f}" if isinstance(value, float) else f"{value:,}")
    console = Console()
    console.print(table)
    for problem in report.wrong[:20]:
        console.print(problem)


def main() -> None:
    """Run it, print the figures, and exit with 1 if anything grew, was lost or stayed over."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=5, help="sessions a second")
    parser.add_argument("--faults", type=float, default=0.02, help="share that goes wrong")
    parser.add_argument("--expire", type=float, default=60, help="seconds of each session")
    parser.add_argument("--seed", type=int, default=20_261_121)
    parser.add_argument("--json", type=Path, help="a file for the figures and every sample")
    options = parser.parse_args()
    plan = Plan(
        options.minutes,
        options.rate,
        options.faults,
        expires_in=timedelta(seconds=options.expire),
    )
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # the merchant's resets
    with open_cluster() as cluster:
        report = asyncio.run(run(cluster.create("soak"), plan, options.seed))
    show(report)
    if options.json:
        options.json.write_text(json.dumps(report.document, indent=1) + "\n")
    sys.exit(bool(report.wrong))


if __name__ == "__main__":
    main()

"""`python -m bench NAME`: measure one; `all`: every quick one; `render`: write the documents."""

import subprocess
import sys

from rich.console import Console
from rich.table import Table

from bench import figures
from bench.catalog import BENCHMARKS
from bench.page import SIGNS, number
from bench.result import Comparison, Result, Spread

USAGE = "usage: python -m bench {all,render,NAME} [--rounds N] [--save] [--help] …; NAME is one of"


def main(arguments: list[str]) -> int:
    """Run a command; gives the exit code."""
    by_name = {benchmark.name: benchmark for benchmark in BENCHMARKS}
    name, *options = arguments or [""]
    if name == "render":
        figures.render(BENCHMARKS)
    elif name == "all":
        return run_all([one.name for one in BENCHMARKS if one.is_quick], options)
    elif name in by_name:
        told = by_name[name].parse(options)
        result = by_name[name].measure(told)
        show(by_name[name].title, result)
        if told.save:
            figures.save(result, BENCHMARKS)
    else:
        sys.stderr.write(f"{USAGE} {', '.join(by_name)}\n")
        return 2
    return 0


def run_all(names: list[str], options: list[str]) -> int:
    """Run each in a process of its own, so that none leaves anything to the next."""
    commands = [[sys.executable, "-m", "bench", name, *options] for name in names]
    return max(subprocess.run(command, check=False).returncode for command in commands)  # noqa: S603 - our own command


def show(title: str, result: Result) -> None:
    """Print the figures and the comparisons."""
    console = Console()
    table = Table("", "median", "least", "most", title=f"{title}: {result.unit}")
    for one in result.contestants:
        table.add_row(one.name, *_cells(one.spread))
    compared = Table("", "median", "least", "most", "goal")
    for comparison in result.comparisons:
        spread = result.compared(comparison)
        words = " ÷ ".join(filter(None, (comparison.of, comparison.to)))
        compared.add_row(words, *_cells(spread), _goal(comparison, spread))
    console.print(table, compared)


def _cells(spread: Spread) -> list[str]:
    return [number(figure) for figure in (spread.median, spread.min, spread.max)]


def _goal(comparison: Comparison, spread: Spread) -> str:
    if comparison.goal is None:
        return ""
    reached = "reached" if comparison.holds(spread.median) else "missed"
    return f"{SIGNS[comparison.sense]} {comparison.goal:g}: {reached}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

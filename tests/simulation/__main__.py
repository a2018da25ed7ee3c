"""Run seeds, each in a process and a database of its own: `python -m simulation --seeds 0-99`."""

import argparse
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from simulation.jobs import Job, end_well, prepare, run_apart, say
from simulation.run import Result
from support.databases import Cluster, open_cluster


def main() -> None:
    """Run them, print a line for each, and exit with 1 if anything was wrong."""
    options = _options()
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets is a part of the run
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "simulation", *sys.argv[1:]])  # noqa: S606 # ourselves
    end_well()
    bad = 0
    met: Counter[str] = Counter()
    came: Counter[str] = Counter()
    with open_cluster() as cluster:
        prepare(cluster)
        for results in _run_all(cluster, options):
            bad += not _tell(results)
            met.update(results[0].met)
            came.update(results[0].came)
            if bad and options.until_wrong:
                break
    say(f"{len(options.seeds)} seeds, {bad} of them wrong; faults met: {_counts(met)}")
    say(f"came: {_counts(came)}")
    sys.exit(bool(bad))


def _run_all(cluster: Cluster, options: argparse.Namespace) -> Iterator[list[Result]]:
    """Each in a process of its own, begun anew: nothing of one is left in the next."""
    turns = (1, 2) if options.twice else (1,)
    fork, spawn = multiprocessing.get_context("fork"), multiprocessing.get_context("spawn")
    context = spawn if options.twice else fork
    jobs = [
        Job(cluster, seed, turn, options.steps, options.traces)
        for seed in options.seeds
        for turn in turns
    ]
    # Not multiprocessing's Pool: to end one early can wait for ever for a worker it has just begun.
    with ThreadPoolExecutor(options.jobs) as pool:
        results = pool.map(partial(run_apart, context), jobs)
        try:
            for _ in options.seeds:
                yield [next(results) for _ in turns]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for running in multiprocessing.active_children():
                running.terminate()


def _tell(results: list[Result]) -> bool:
    """Print what a seed came to, and how to see it again; gives whether it is right."""
    first = results[0]
    say(first.line)
    same = len({result.digest for result in results}) == 1
    if not same:
        say(f"  NOT THE SAME: {' '.join(result.digest for result in results)}")
    if first.wrong:
        say(first.plan)
        say("\n".join(first.tail))
        say("\n".join(f"WRONG: {problem}" for problem in first.wrong[:20]))
        say(f"again: make sim SEEDS={first.seed} SIM_ARGS=--steps")
    return same and not first.wrong


def _counts(of: Counter[str]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in sorted(of.items())) or "none"


def _seeds(text: str) -> list[int]:
    """Read `7` or `0-99` or `1,5,9-12`."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    parser.add_argument("--seeds", type=_seeds, default=_seeds("0-19"), help="7, 0-99 or 1,5,9-12")
    parser.add_argument("--jobs", type=int, default=2, help="seeds at the same time")
    parser.add_argument("--steps", action="store_true", help="print every step")
    parser.add_argument("--traces", type=Path, help="a directory for whole traces")
    parser.add_argument("--until-wrong", action="store_true", help="end at the first that is")
    parser.add_argument("--twice", action="store_true", help="run each twice, compare the digests")
    return parser.parse_args()


if __name__ == "__main__":
    main()

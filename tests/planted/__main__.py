"""Plant each bug in a copy of paywatch, and see that the suite notices: `python -m planted`.

Exits with 1 if one survives, or if the sources as they are do not pass.
"""

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from planted.bug import ROOT, SIMULATION, Bug
from planted.catalogue import ALL
from planted.catchers import Verdict, copy_with, run_tests, simulate, try_bug
from planted.report import Run

GIT: Final = ("git", "rev-parse", "--short", "HEAD")


def main() -> None:
    """Run those that are named, or all."""
    options = _options()
    bugs = [bug for bug in ALL if not options.bugs or bug.name in options.bugs]
    if unknown := set(options.bugs) - {bug.name for bug in bugs}:
        sys.exit(f"no such bug: {', '.join(sorted(unknown))}")
    first, _, last = options.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    controls = [] if options.no_control else _control(bugs, seeds)
    if any(control.by for control in controls):
        sys.exit("the sources as they are do not pass: nothing can be said of the bugs")
    with ThreadPoolExecutor(options.jobs) as pool:
        verdicts = tuple(pool.map(lambda bug: _say(try_bug(bug, seeds)), bugs))
    survived = [verdict.bug for verdict in verdicts if not verdict.caught]
    print(f"{len(verdicts) - len(survived)} of {len(verdicts)} caught")  # noqa: T201
    if options.write:
        commit = subprocess.check_output(GIT, cwd=ROOT, text=True).strip()  # noqa: S603 # constant
        Run(commit, "make planted", options.seeds, verdicts).write()
    sys.exit(f"survived: {', '.join(survived)}" if survived else 0)


def _control(bugs: list[Bug], seeds: range) -> list[Verdict]:
    """Run the same on a copy without a bug: it must pass."""
    nodes = sorted({bug.caught_by for bug in bugs} - {SIMULATION})
    with copy_with(None) as root:
        found = []
        if any(bug.caught_by == SIMULATION for bug in bugs):
            found.append(_say(simulate(root, "(none) simulation", seeds)))
        if nodes:
            found.append(_say(run_tests(root, "(none) tests", nodes)))
    return found


def _say(verdict: Verdict) -> Verdict:
    what = f"caught by {verdict.by}" if verdict.caught else verdict.by or "passed"
    where = f"{verdict.seeds:3} seeds" if verdict.seeds else "    tests"
    print(f"{verdict.bug:34} {where} {verdict.seconds:6.1f} s  {what}", flush=True)  # noqa: T201
    return verdict


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m planted", description=__doc__)
    parser.add_argument("bugs", nargs="*", metavar="BUG", help="their names; all if none is given")
    parser.add_argument("--seeds", default="0-39", help="that the simulation may take")
    parser.add_argument("--jobs", type=int, default=2, help="bugs at the same time")
    parser.add_argument("--no-control", action="store_true", help="trust the sources as they are")
    parser.add_argument("--write", action="store_true", help="write docs/planted.md by this run")
    return parser.parse_args()


if __name__ == "__main__":
    main()

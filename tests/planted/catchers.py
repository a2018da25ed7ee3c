"""Whether a copy of paywatch with a bug in it is noticed: by the simulation, or by a test."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from planted.bug import ROOT, SIMULATION, Bug

LONGEST_S: Final = 900.0  # of one run
# Ids of sessions, credits and accounts: other ones in every run of another seed.
_ID: Final = re.compile(r"\b(?:[0-9a-f]{8}-[0-9a-f-]{27}|G[A-Z2-7]{55}|[0-9a-f]{32,}|\d{9,})\b")
_SEED: Final = re.compile(r"^again: make sim SEEDS=(\d+)", re.MULTILINE)
_RAISED: Final = re.compile(r"\b(\w+(?:Error|Violation|Failure|Moved|Reset|Gap))\(")
_FAILED: Final = re.compile(r"^(?:FAILED|ERROR) \S*?([^/\s]+::\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one bug.

    Attributes:
        caught: whether a check failed; what could not be run at all has caught nothing.
        by: the check's words, or the test's name, or why nothing can be said; empty if all passed.
        seeds: how many were run, the one that caught it with them; 0 for a test.
        seconds: by the wall clock.
    """

    bug: str
    caught: bool
    by: str
    seeds: int
    seconds: float


@contextmanager
def copy_with(bug: Bug | None) -> Iterator[Path]:
    """Copy what is installed of the repository, and plant a bug in the copy."""
    with tempfile.TemporaryDirectory(prefix="planted-") as directory:
        root = Path(directory)
        for name in ("src", "migrations"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        if bug is not None:
            bug.plant(root)
        yield root


def try_bug(bug: Bug, seeds: range) -> Verdict:
    """Plant a bug, and see what notices it."""
    with copy_with(bug) as root:
        if bug.caught_by == SIMULATION:
            return simulate(root, bug.name, seeds)
        return run_tests(root, bug.name, [bug.caught_by])


def simulate(root: Path, name: str, seeds: range) -> Verdict:
    """Run seeds one after the other, until one fails."""
    began = time.monotonic()
    command = ["-m", "simulation", "--jobs", "1", "--until-wrong", "--seeds"]
    ended, told = _run(root, [*command, f"{seeds.start}-{seeds.stop - 1}"])
    seconds = time.monotonic() - began
    failed = _SEED.search(told)
    if failed is None:
        return Verdict(name, caught=False, by=_why(ended), seeds=len(seeds), seconds=seconds)
    tried = int(failed.group(1)) - seeds.start + 1
    return Verdict(name, caught=True, by=_what_was_wrong(told), seeds=tried, seconds=seconds)


def _what_was_wrong(told: str) -> str:
    """The first check that failed, in its words; of an exception, its last line."""
    _, _, wrong = told.partition("\nWRONG: ")
    lines = wrong.partition("\nagain: ")[0].strip().splitlines() or ["it ended by itself"]
    line = lines[-1] if lines[0].startswith("Traceback") else lines[0]
    if raised := _RAISED.findall(line):  # within groups of exceptions
        line = f"{line.partition(': ')[0]}: {raised[-1]}"
    return _ID.sub("…", line)[:160]


def run_tests(root: Path, name: str, nodes: list[str]) -> Verdict:
    """Run tests until one fails."""
    began = time.monotonic()
    paths = [f"tests/{node}" for node in nodes]
    ended, told = _run(root, ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *paths])
    seconds = time.monotonic() - began
    found = _FAILED.search(told)
    if found is None:
        return Verdict(name, caught=False, by=_why(ended), seeds=0, seconds=seconds)
    return Verdict(name, caught=True, by=found.group(1)[:200], seeds=0, seconds=seconds)


def _why(ended: int | None) -> str:
    """Why no check has failed: for how it ended, with None for what had to be ended."""
    return {0: "", None: "it did not end"}.get(ended, "it could not be run")


def _run(root: Path, command: list[str]) -> tuple[int | None, str]:
    """Run it on the copy; None for what had to be ended."""
    environment: Mapping[str, str] = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (root / "src", ROOT / "tests"))),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    process = subprocess.Popen(  # noqa: S603 # ourselves
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        told, _ = process.communicate(timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        told = _end(process)
        return None, told
    return process.returncode, told


def _end(process: subprocess.Popen[str]) -> str:
    """End what takes too long, and its PostgreSQL with it if it still listens; gives its output."""
    process.terminate()
    try:
        return process.communicate(timeout=60)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0]

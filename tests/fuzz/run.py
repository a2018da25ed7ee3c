"""Coverage-guided fuzzing of every parser of what strangers send, each for its share of the time.

What is found is kept as a file, and how to run it again is printed. A working corpus grows in
`.fuzz/` from run to run; it begins with the real records of the tests.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from fuzz.target import CORPUS, FUZZ, NAMES, Target, kept

_WORK: Final = FUZZ.parents[1] / ".fuzz"
_LARGEST: Final = 16_384  # bytes of an input; a page of real records has more, a shape has not
_HANG_S: Final = 10  # for one input
_RSS_MIB: Final = 1024
_COVERAGE: Final = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)")
_EXECUTIONS: Final = re.compile(r"stat::number_of_executed_units:\s+(\d+)")
_PEAK: Final = re.compile(r"stat::peak_rss_mb:\s+(\d+)")


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """What came of one target.

    Attributes:
        edges: of paywatch's code that were reached.
        features: edges with how often, roughly.
        corpus: inputs that each reached something new.
        findings: files with inputs that broke it.
    """

    target: str
    executions: int
    edges: int
    features: int
    corpus: int
    peak_mib: int
    findings: list[str]


def fuzz(name: str, seconds: int, seed: int) -> Fuzzed:
    """Fuzz one target in a process of its own."""
    target: Target = import_module(f"fuzz.{name}").TARGET
    corpus, found = _WORK / "corpus" / name, _WORK / "found" / name
    for directory in (corpus, found):
        directory.mkdir(parents=True, exist_ok=True)
    for raw in (*target.seeds, *(path.read_bytes() for path in kept(name))):
        (corpus / hashlib.sha256(raw).hexdigest()[:16]).write_bytes(raw)
    before = set(found.iterdir())
    ended = subprocess.run(  # noqa: S603 - ourselves
        [sys.executable, str(FUZZ / "child.py"), name, str(corpus), f"-max_total_time={seconds}",
         f"-seed={seed}", f"-max_len={_LARGEST}", f"-timeout={_HANG_S}",
         f"-rss_limit_mb={_RSS_MIB}", f"-artifact_prefix={found}/", "-print_final_stats=1",
         "-len_control=0"],
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    said = ended.stdout + ended.stderr
    findings = sorted(str(path) for path in set(found.iterdir()) - before)
    if ended.returncode and not findings:
        raise SystemExit(f"{name}: the fuzzer failed:\n{said[-3000:]}")
    if findings:
        print(_trouble(said), file=sys.stderr)  # noqa: T201
    edges, features, count = (_COVERAGE.findall(said) or [("0", "0", "0")])[-1]
    return Fuzzed(
        name, _last(_EXECUTIONS, said), int(edges), int(features), int(count),
        _last(_PEAK, said), findings,
    )  # fmt: skip


def _last(pattern: re.Pattern[str], said: str) -> int:
    return int((pattern.findall(said) or ["0"])[-1])


def _trouble(said: str) -> str:
    """What libFuzzer says of an input that broke the target: from the exception on."""
    begin = max(said.find("=== Uncaught Python exception"), 0)
    return said[begin:][:4000]


def show(fuzzed: list[Fuzzed]) -> None:
    """Print the figures, and how to run each finding again."""
    table = Table(title="Coverage-guided fuzzing")
    for heading in ("target", "executions", "edges", "features", "corpus", "MiB", "findings"):
        table.add_column(heading, justify="left" if heading == "target" else "right")
    for one in fuzzed:
        figures = (one.executions, one.edges, one.features, one.corpus, one.peak_mib)
        table.add_row(one.target, *(f"{n:,}" for n in figures), str(len(one.findings)))
    console = Console()
    console.print(table)
    for one in fuzzed:
        for path in one.findings:
            raw = Path(path).read_bytes()
            console.print(f"{one.target}: {raw[:200]!r}", markup=False)
            console.print(
                f"  again:   PYTHONPATH=tests python tests/fuzz/replay.py {one.target} {path}"
            )
            console.print(f"  to keep: cp {path} {CORPUS / one.target}/what-it-is")


def main() -> None:
    """Fuzz, print the figures, and exit with 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together")
    parser.add_argument("--target", action="append", choices=NAMES, help="only this; repeatable")
    parser.add_argument("--seed", type=int, default=20_261_121)
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args()
    names = options.target or NAMES
    share = max(1, options.seconds // len(names))
    fuzzed = [fuzz(name, share, options.seed) for name in names]
    show(fuzzed)
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in fuzzed], indent=1) + "\n")
    sys.exit(any(one.findings for one in fuzzed))


if __name__ == "__main__":
    main()

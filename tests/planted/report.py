"""A run of planted bugs as JSON, and the page that is made of it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from planted.bug import ROOT, SIMULATION
from planted.catalogue import ALL, CANARY
from planted.catchers import Verdict

FIGURES: Final = ROOT / "docs" / "planted.json"
PAGE: Final = ROOT / "docs" / "planted.md"

_PAGE: Final = """\
# Bugs that were planted

A suite that passes says little unless it can fail. Each of these is one small wrong change to
paywatch, as somebody could make it: a text of one file, and the wrong one in its place. Each is
made in a copy of the sources, and then what should notice it is run: the
deterministic simulation, seed after seed until one fails; or, for what only real processes and real
concurrency show, or what a seed seldom brings about, the tests named. Before that, the sources as
they are have passed the same seeds and tests.

```sh
make planted
make planted PLANTED_ARGS='no-fold a-fresh-webhook-id --seeds 0-9'
```

It exits with 1 if one of them survives: that is a check that is missing. What cannot be run at all,
or does not end, is not caught either. The page is written by `make planted PLANTED_ARGS=--write`,
from `planted.json`. The list is `tests/planted`; a test keeps every text true to the sources, and
another tries the first of the table and a few more each time that the suite is run.

Seen at commit `{commit}`, by `{command}`, with seeds {seeds}: **{caught} of {number} were caught**,
{simulated} of them by the simulation, in {median} seed(s) at the median and {most} at most.
{remark}

| bug | what it is | caught by | seeds |
|---|---|---|---|
{rows}

What this can say: that these mistakes, and those like them, do not pass unnoticed. It cannot say
how many mistakes of other kinds would. The first of the table is the canary: a run that does not
catch it proves nothing of the others. A number of seeds is luck as much as merit: with another
first seed, it is another.
"""


@dataclass(frozen=True, slots=True)
class Run:
    """All that one run found.

    Attributes:
        commit: of the sources, abbreviated.
        seeds: that the simulation had, such as `0-39`.
        remark: how it was not quite as the command would do it.
    """

    commit: str
    command: str
    seeds: str
    verdicts: tuple[Verdict, ...]
    remark: str = ""

    def write(self) -> None:
        """Write the figures, and the page."""
        FIGURES.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")
        PAGE.write_text(render(self))


def read(path: Path = FIGURES) -> Run:
    """Read the run that the page shows."""
    document = json.loads(path.read_text())
    verdicts = tuple(Verdict(**verdict) for verdict in document.pop("verdicts"))
    return Run(**document, verdicts=verdicts)


def render(run: Run) -> str:
    """Write the page of a run."""
    by_name = {verdict.bug: verdict for verdict in run.verdicts}
    bugs = [(bug, by_name[bug.name]) for bug in ALL if bug.name in by_name]
    tried = sorted(
        verdict.seeds for bug, verdict in bugs if bug.caught_by == SIMULATION and verdict.caught
    )
    rows = [
        f"| {bug.name}{' (canary)' if bug is CANARY else ''} | {bug.story} |"
        f" {_by(verdict)} | {verdict.seeds or ''} |"
        for bug, verdict in bugs
    ]
    return _PAGE.format(
        commit=run.commit,
        command=run.command,
        seeds=run.seeds,
        caught=sum(verdict.caught for verdict in run.verdicts),
        number=len(run.verdicts),
        simulated=len(tried),
        median=tried[len(tried) // 2] if tried else 0,
        most=tried[-1] if tried else 0,
        remark=run.remark,
        rows="\n".join(rows),
    )


def _by(verdict: Verdict) -> str:
    """What caught it, in a cell."""
    if not verdict.caught:
        return "**nothing**"
    if verdict.seeds == 0:
        return f"`{verdict.by.partition('::')[2].partition('[')[0] or verdict.by}`"
    return verdict.by.replace("|", "\\|")

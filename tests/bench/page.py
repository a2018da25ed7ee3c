"""The page of all figures, from their JSON files: `docs/performance.md`."""

from collections.abc import Mapping, Sequence

from bench.benchmark import Benchmark
from bench.result import Comparison, Result, Sense, Spread

HEAD = """\
# Performance

How fast paywatch is beside what somebody would use instead. Every comparison is measured in one run
on one machine, in rounds by turns, and each run checks that its work was done. What can be carried
over to another machine is the ratio; the absolute figures are those of the machine named below each
table. Ratios are worked out round by round: the median is that of the rounds' ratios.

What such a figure cannot say: PostgreSQL, Horizon and the receiver share the machine's processors
with what is measured, and there is no network between them. Slower disks, distant servers and
several processes at once were not tried. A goal counts as reached if the median reaches it; where
the rounds lie on both sides of it, another run may say otherwise. The daemon has its default
settings, but for addresses and keys, webhooks to its own machine, which are allowed, and requests
to Horizon, of which it may make any number.

`make bench` measures all quick ones, `make bench BENCH=settling` one. With `BENCH_ARGS=--save` the
figures are written to [figures/](figures) as JSON, and this page and its plots are written anew
from them. `BENCH_ARGS=--help` shows what else each can be told.

Looking after ten million sessions was measured with `chrt -r 5` before the command, while
`make soak` took a twentieth of the machine beside it; memory while `make planted` ran; the others
alone.
"""

SIGNS = {Sense.AT_LEAST: "≥", Sense.AT_MOST: "≤"}


def render(benchmarks: Sequence[Benchmark], results: Mapping[str, Result]) -> str:
    """Write the page; a benchmark without figures is left out."""
    shown = [(one, results[one.name]) for one in benchmarks if one.name in results]
    contents = "\n".join(f"- [{one.title}](#{_anchor(one.title)})" for one, _ in shown)
    sections = [_section(one, result) for one, result in shown]
    return "\n".join([HEAD, contents, *sections])


def _section(benchmark: Benchmark, result: Result) -> str:
    return f"""
## {benchmark.title}

{benchmark.about.strip()}

![{benchmark.title}](figures/{benchmark.name}.svg)

{_contestants(result)}

{_comparisons(result)}

{_small_print(result)}
"""


def _contestants(result: Result) -> str:
    rows = [f"| {result.unit} | median | least | most | |", "|---|--:|--:|--:|---|"]
    for one in result.contestants:
        name = f"**{one.name}**" if one.is_ours else one.name
        rows.append(f"| {name} | {_cells(one.spread)} | {one.about} |")
    return "\n".join(rows)


def _comparisons(result: Result) -> str:
    rows = ["| | median | least | most | goal | |", "|---|--:|--:|--:|--:|---|"]
    for one in result.comparisons:
        spread = result.compared(one)
        rows.append(f"| {_words(one)} | {_cells(spread)} | {_verdict(one, spread)} |")
    return "\n".join(rows)


def _words(comparison: Comparison) -> str:
    return comparison.of if comparison.to is None else f"{comparison.of} ÷ {comparison.to}"


def _verdict(comparison: Comparison, spread: Spread) -> str:
    if comparison.goal is None:
        return "| "
    reached = "reached" if comparison.holds(spread.median) else "**missed**"
    return f"{SIGNS[comparison.sense]} {comparison.goal:g} | {reached}"


def _cells(spread: Spread) -> str:
    return " | ".join(map(number, (spread.median, spread.min, spread.max)))


def _small_print(result: Result) -> str:
    """Say where and how it was measured, in lines of at most 100 characters."""
    rounds = len(result.contestants[0].rounds)
    told = {"rounds": rounds, **result.settings}
    words = [f"{name.replace('_', ' ')} {value}" for name, value in told.items()]
    machine = [f"{name.replace('_', ' ')} {value}" for name, value in result.machine.items()]
    lines = [""]
    for word in [*(f"{word}," for word in [*words, *machine][:-1]), f"{[*words, *machine][-1]}."]:
        if len(lines[-1]) + 1 + len(word) > 100:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def number(figure: float) -> str:
    """Write a figure with three digits or more, and thousands apart."""
    if figure >= 100:
        return f"{figure:,.0f}"
    return f"{figure:.1f}" if figure >= 10 else f"{figure:.2f}"


def _anchor(title: str) -> str:
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")

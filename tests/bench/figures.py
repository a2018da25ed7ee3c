"""Where figures are kept, and everything that is written from them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench import page, plot
from bench.benchmark import Benchmark
from bench.result import Result
from support.documents import ROOT

DOCS = ROOT / "docs"


def load(figures: Path) -> dict[str, Result]:
    """Read all results, by the name of their benchmark."""
    return {file.stem: Result.load(file.read_text()) for file in sorted(figures.glob("*.json"))}


def rendered(
    benchmarks: Sequence[Benchmark], results: Mapping[str, Result]
) -> Iterator[tuple[str, str]]:
    """Give each file that follows from the results: its place under docs, and its text."""
    yield "performance.md", page.render(benchmarks, results)
    for one in benchmarks:
        if one.name in results:
            yield f"figures/{one.name}.svg", plot.render(one.title, results[one.name])


def render(benchmarks: Sequence[Benchmark], docs: Path = DOCS) -> None:
    """Write the page and the plots from the JSON files."""
    for path, text in rendered(benchmarks, load(docs / "figures")):
        (docs / path).write_text(text)


def save(result: Result, benchmarks: Sequence[Benchmark], docs: Path = DOCS) -> None:
    """Keep a result, and write what follows from it."""
    (docs / "figures").mkdir(exist_ok=True)
    (docs / "figures" / f"{result.benchmark}.json").write_text(result.dump())
    render(benchmarks, docs)

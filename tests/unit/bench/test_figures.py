"""The figures in the documents are those that were measured, and nothing else."""

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench import figures, page, plot
from bench.benchmark import Benchmark
from bench.catalog import BENCHMARKS
from bench.result import Comparison, Contestant, Result, Sense
from bench.rounds import by_turns

RESULT = Result(
    "example",
    "operations a second",
    (
        Contestant("paywatch", (300.0, 100.0, 200.0), is_ours=True, about="as it is"),
        Contestant("a <bare> loop", (600.0, 400.0, 500.0)),
    ),
    (Comparison("paywatch", "a <bare> loop", goal=0.5), Comparison("paywatch", goal=150)),
    {"operations": 1000},
    {"cores": 2, "commit": "0123456789ab"},
)
EXAMPLE = Benchmark("example", "An example", "What it is.", lambda _: RESULT)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def row(text: str, beginning: str) -> list[str]:
    [line] = [line for line in text.splitlines() if line.startswith(f"| {beginning} |")]
    return cells(line)


def test_the_documents_are_what_the_measured_figures_render_to() -> None:
    results = figures.load(figures.DOCS / "figures")
    for path, text in figures.rendered(BENCHMARKS, results):
        assert (figures.DOCS / path).read_text() == text, f"{path}: run `make docs`"


def test_no_plot_and_no_figures_are_of_a_benchmark_that_is_gone() -> None:
    names = {one.name for one in BENCHMARKS}
    assert len(names) == len(BENCHMARKS)
    assert {file.stem for file in (figures.DOCS / "figures").iterdir()} <= names


def test_kept_figures_say_where_and_of_what_they_are() -> None:
    for file in (figures.DOCS / "figures").glob("*.json"):
        result = Result.load(file.read_text())
        assert result.benchmark == file.stem
        assert result.dump() == file.read_text(), "medians do not follow from the rounds"
        assert re.fullmatch(r"[0-9a-f]{12}", str(result.machine["commit"])), "of no commit"
        assert {"cores", "python", "measured_on"} <= set(result.machine)


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda one: one.name)
def test_every_benchmark_has_a_text_for_people_and_defaults(benchmark: Benchmark) -> None:
    assert max(map(len, benchmark.about.splitlines())) <= 100
    assert "\n#" not in benchmark.about
    assert benchmark.parse([]).rounds == benchmark.rounds >= 3
    assert not benchmark.parse([]).save


def test_a_ratio_is_that_of_each_round() -> None:
    spread = RESULT.compared(RESULT.comparisons[0])
    assert (spread.median, spread.min, spread.max) == (0.4, 0.25, 0.5)  # of 0.5, 0.25, 0.4
    assert not RESULT.comparisons[0].holds(spread.median)
    assert Comparison("paywatch", goal=0.4, sense=Sense.AT_MOST).holds(0.4)


def test_rounds_that_do_not_belong_together_are_not_compared() -> None:
    short = Contestant("a <bare> loop", (1.0,))
    result = Result("example", "ms", (RESULT.contestants[0], short), RESULT.comparisons)
    with pytest.raises(ValueError, match="shorter"):
        result.compared(result.comparisons[0])


def test_a_result_is_kept_and_read_again() -> None:
    assert Result.load(RESULT.dump()) == RESULT


def test_the_page_shows_figures_ratios_and_missed_goals() -> None:
    text = page.render([EXAMPLE], {"example": RESULT})
    assert row(text, "**paywatch**") == ["**paywatch**", "200", "100", "300", "as it is"]
    ratio = row(text, "paywatch ÷ a <bare> loop")
    assert ratio[1:] == ["0.40", "0.25", "0.50", "≥ 0.5", "**missed**"]
    assert row(text, "paywatch")[-2:] == ["≥ 150", "reached"]
    assert "rounds 3, operations 1000, cores 2, commit 0123456789ab.\n" in text


def test_the_plot_is_a_picture_whose_bars_begin_at_zero() -> None:
    text = plot.render("An example", RESULT)
    assert text == plot.render("An example", RESULT)
    bars = [one for one in ET.fromstring(text) if one.tag.endswith("rect")]  # noqa: S314 - ours
    ours, beside = (float(bar.attrib["width"]) for bar in bars)
    assert ours / beside == pytest.approx(200 / 500, rel=0.01)
    assert {bar.attrib["x"] for bar in bars} == {str(plot.LEFT)}


def test_saving_writes_the_figures_and_what_follows_from_them(tmp_path: Path) -> None:
    figures.save(RESULT, [EXAMPLE], tmp_path)
    assert figures.load(tmp_path / "figures") == {"example": RESULT}
    assert "An example" in (tmp_path / "performance.md").read_text()
    assert (tmp_path / "figures" / "example.svg").read_text().startswith("<svg")


def test_rounds_go_by_turns_and_back() -> None:
    ran: list[str] = []

    def running(name: str) -> float:
        ran.append(name)
        return float(len(ran))

    found = by_turns({"a": lambda: running("a"), "b": lambda: running("b")}, 2)
    assert ran == ["a", "b", "b", "a"]
    assert found == {"a": [1, 4], "b": [2, 3]}


def test_a_step_of_the_axis_is_round() -> None:
    steps: Sequence[float] = [plot._step(most) for most in (0.9, 4, 9, 49, 12_345)]
    assert steps == [0.2, 1, 2, 10, 5000]

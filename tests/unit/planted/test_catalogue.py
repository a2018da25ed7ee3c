"""The list of planted bugs is true to the sources."""

import ast
from collections import Counter

import pytest

from planted import report
from planted.bug import PACKAGE, ROOT, SIMULATION, Bug
from planted.catalogue import ALL, BUGS, CANARY


@pytest.mark.parametrize("bug", ALL, ids=[bug.name for bug in ALL])
def test_a_bugs_text_is_in_its_file_once_and_the_wrong_one_is_python(bug: Bug) -> None:
    text = bug.text()
    assert text.count(bug.old) == 1, "the sources have changed: change the bug with them"
    wrong = text.replace(bug.old, bug.new)
    assert wrong != text
    ast.parse(wrong)


@pytest.mark.parametrize("bug", [bug for bug in ALL if bug.caught_by != SIMULATION])
def test_the_test_that_catches_a_bug_exists(bug: Bug) -> None:
    path, _, name = bug.caught_by.partition("::")
    text = (ROOT / "tests" / path).read_text()
    assert f"def {name}(" in text if name else "def test_" in text


def test_there_are_many_of_them_all_over_the_house() -> None:
    assert [name for name, count in Counter(b.name for b in ALL).items() if count > 1] == []
    assert len(BUGS) >= 25
    assert CANARY not in BUGS
    layers = Counter(bug.file.partition("/")[0] for bug in BUGS)
    assert min(layers[name] for name in ("domain", "store", "service", "horizon")) >= 3
    assert all((ROOT / PACKAGE / bug.file).is_file() for bug in ALL)


def test_the_page_shows_the_run_of_every_bug_of_the_list_and_all_were_caught() -> None:
    run = report.read()
    assert report.PAGE.read_text() == report.render(run), "run `make planted PLANTED_ARGS=--write`"
    assert [verdict.bug for verdict in run.verdicts] == [bug.name for bug in ALL]
    assert [verdict.bug for verdict in run.verdicts if not verdict.caught] == []

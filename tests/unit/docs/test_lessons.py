"""Every lesson has a test, and every test that the page names exists."""

import ast
import re
from functools import cache

import pytest

from support.documents import ROOT

PAGE = (ROOT / "docs" / "lessons.md").read_text()
NAMED = sorted(set(re.findall(r"^- `([\w/]+\.py)::(\w+)`$", PAGE, re.MULTILINE)))
SECTIONS = re.split(r"^(?=\*\*)", PAGE, flags=re.MULTILINE)[1:]


@cache
def named_in(path: str) -> set[str]:
    module = ast.parse((ROOT / "tests" / path).read_text())
    functions = [n for n in module.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {function.name for function in functions if function.name.startswith("test_")}


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_the_test_exists(path: str, name: str) -> None:
    assert name in named_in(path)


def test_every_lesson_and_every_complaint_has_its_tests() -> None:
    numbers = [int(found[1]) for s in SECTIONS if (found := re.match(r"\*\*(\d+)\.", s))]
    assert numbers == list(range(1, 23))
    assert len(SECTIONS) - len(numbers) == 9
    assert [section for section in SECTIONS if "::test_" not in section] == []


def test_every_test_that_bears_a_lessons_number_is_on_the_page_under_it() -> None:
    files = {str(p.relative_to(ROOT / "tests")) for p in (ROOT / "tests").rglob("test_*.py")}
    for path in files:
        for name in named_in(path):
            if number := re.match(r"test_lesson_(\d+)_", name):
                [lesson] = [s for s in SECTIONS if s.startswith(f"**{number[1]}.")]
                assert f"`{path}::{name}`" in lesson

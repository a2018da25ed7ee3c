"""All documents together: links that lead somewhere, an index that is whole, generated pages."""

import runpy
from importlib.metadata import version
from pathlib import Path
from urllib.parse import unquote

import pytest

from support.documents import ROOT, anchors, links, pages, prose

OURS = ("README.md", "CHANGELOG.md", "docs/README.md", "docs/guide.md", "docs/architecture.md")
DOCS = ROOT / "docs"


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def test_there_are_pages_and_links_to_test() -> None:
    assert set(OURS) < set(names(pages()))
    assert sum(len(list(links(page))) for page in pages()) > 50


@pytest.mark.parametrize("page", names(pages()))
def test_every_link_leads_to_a_file_and_a_heading(page: str) -> None:
    for link in links(ROOT / page):
        if "://" in link:
            assert link.startswith("https://"), link
            continue
        path, _, fragment = unquote(link).partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{link}: no such file"
        if fragment:
            assert fragment in anchors(target), f"{link}: no such heading"


def test_the_index_has_every_page() -> None:
    index = DOCS / "README.md"
    listed = {(DOCS / link).resolve() for link in links(index)}
    single = {page for page in DOCS.glob("*.md") if page != index}
    others = {ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "deploy" / "README.md"}
    assert listed == single | others | {DOCS / "adr" / "README.md"}


def test_every_decision_is_listed() -> None:
    decisions = {page.name for page in DOCS.glob("adr/0*.md")}
    assert len(decisions) >= 8
    assert set(links(DOCS / "adr" / "README.md")) == decisions
    listed = [link for link in links(DOCS / "architecture.md") if link.startswith("adr/0")]
    assert {link.removeprefix("adr/") for link in listed} == decisions


def test_the_page_of_states_is_what_the_table_of_transitions_makes() -> None:
    render = runpy.run_path(str(DOCS / "states.py"))["render"]
    assert (DOCS / "states.md").read_text() == render(), "run `make docs`"


@pytest.mark.parametrize("page", OURS)
def test_prose_is_wrapped(page: str) -> None:
    lines = prose(ROOT / page).splitlines()
    assert [line for line in lines if len(line) > 100 and not line.startswith("|")] == []


def test_the_changelog_has_this_version() -> None:
    assert version("paywatch") in (ROOT / "CHANGELOG.md").read_text()

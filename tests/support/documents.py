"""The documents for people, as tests read them: their blocks of code, links and tables."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(
    r"^```(?P<language>\w+)(?P<marks>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block; `marks` are the words behind its language, such as `tested`."""

    language: str
    marks: frozenset[str]
    text: str


def pages() -> list[Path]:
    """Every document of the repository."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")])


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [
        Block(match["language"], frozenset(match["marks"].split()), match["text"])
        for match in _FENCE.finditer(page.read_text())
    ]


def examples(page: Path, language: str) -> list[str]:
    """The blocks that a page wants to be run."""
    return [b.text for b in blocks(page) if b.language == language and "tested" in b.marks]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def links(page: Path) -> Iterator[str]:
    """Where the links of a page lead."""
    return (match[1] for match in _LINK.finditer(prose(page)))


def anchors(page: Path) -> set[str]:
    """The fragments by which a page's headings can be linked to, as GitHub and others make them."""
    plain = (re.sub(r"[`*]|\[|\]\([^)]*\)", "", title) for title in _HEADING.findall(prose(page)))
    return {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in plain}


def table(page: Path, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    text = page.read_text().partition(f"{heading}\n")[2]
    rows = re.search(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    assert rows is not None, f"{page.name}: no table below {heading!r}"
    lines = rows[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]

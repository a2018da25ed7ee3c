"""The map of the house agrees with the house."""

import re
import tomllib
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from support.documents import ROOT, blocks

PAGE = ROOT / "docs" / "architecture.md"
SOURCE = ROOT / "src" / "paywatch"
MODULES = re.findall(r"^\| `([\w/]+\.py)` \| \S", PAGE.read_text(), re.MULTILINE)
NAMES = re.findall(r"`([a-z_]+\.[a-z_]+\.[A-Za-z_.]+)`", PAGE.read_text())


def test_every_module_is_on_the_map_once() -> None:
    tree = {str(p.relative_to(SOURCE)) for p in SOURCE.rglob("*.py") if p.name != "__init__.py"}
    assert sorted(MODULES) == sorted(tree), "a new file goes on the map in docs/architecture.md"


def test_every_package_has_its_section() -> None:
    headings = re.findall(r"^### (\w+)$", PAGE.read_text(), re.MULTILINE)
    packages = {p.parent.name for p in SOURCE.glob("*/__init__.py")}
    assert sorted(headings) == sorted(packages)


@pytest.mark.parametrize("name", sorted(set(NAMES)))
def test_the_functions_on_the_way_exist(name: str) -> None:
    assert len(set(NAMES)) > 15
    package, module, *path = name.split(".")
    found: ModuleType | object = import_module(f"paywatch.{package}.{module}")
    for part in path:
        found = getattr(found, part)
    assert callable(found)


def test_the_layers_are_those_that_are_checked() -> None:
    project = tomllib.loads(Path(ROOT / "pyproject.toml").read_text())
    [layers] = [
        contract["layers"]
        for contract in project["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    ]
    [picture] = [block.text for block in blocks(PAGE) if block.language == "text"]
    drawn = [re.split(r"  +│|\s{5,}", line.strip())[0] for line in picture.splitlines()]
    assert [re.findall(r"\w+", line) for line in drawn if re.match(r"\w", line)] == [
        re.findall(r"\w+", layer) for layer in layers
    ]

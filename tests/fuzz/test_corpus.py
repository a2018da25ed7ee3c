"""Every seed and every input that was trouble once, given to its target; for more: `make fuzz`."""

from importlib import import_module
from pathlib import Path

import pytest

from fuzz.target import CORPUS, FUZZ, NAMES, Target, kept


def target_of(name: str) -> Target:
    target: Target = import_module(f"fuzz.{name}").TARGET
    return target


@pytest.fixture(scope="module", autouse=True)
def _servers() -> object:
    yield
    for name in ("answers", "horizon_http"):
        import_module(f"fuzz.{name}").SERVER.close()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_real_is_read(name: str) -> None:
    target = target_of(name)
    assert len(target.seeds) >= 3
    for raw in target.seeds:
        target.run(raw)


@pytest.mark.parametrize("path", [path for name in NAMES for path in kept(name)],
                         ids=lambda path: f"{path.parent.name}/{path.name}")  # fmt: skip
def test_what_was_trouble_once_is_none_now(path: Path) -> None:
    target_of(path.parent.name).run(path.read_bytes())


def test_every_target_is_listed() -> None:
    modules = {path.stem for path in FUZZ.glob("*.py") if "\nTARGET = " in path.read_text()}
    assert modules == set(NAMES)
    assert {path.name for path in CORPUS.iterdir()} <= set(NAMES)

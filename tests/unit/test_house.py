"""Rules of the house that import-linter and ruff cannot express."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import paywatch

SOURCE = Path(paywatch.__file__).parent
MODULES = sorted(str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py"))
DOMAIN = [module for module in MODULES if module.startswith("domain/")]

PURE = {
    "collections",
    "dataclasses",
    "datetime",
    "email.utils",
    "enum",
    "functools",
    "orjson",
    "paywatch.domain",
    "paywatch.errors",
    "re",
    "types",
    "typing",
    "uuid",
}
IMPURE_CALLS = {"now", "utcnow", "today", "uuid1", "uuid4", "uuid7", "open", "print", "input"}
FORBIDDEN_NAMES = {"block", "blocks", "confirmations", "transaction", "timestamp", "db_session"}
FORBIDDEN_ENDINGS = ("Manager", "Helper", "Util", "Utils", "Processor", "Handler")
FRAMEWORKS = {"_LastHandler"}  # a handler of logging's
ROOT = Path(__file__).parents[2]
DRIVERS = {"psycopg"}  # SQLAlchemy imports it, by the name in the URL


def tree(module: str) -> ast.Module:
    return ast.parse((SOURCE / module).read_text())


def imported(module: str) -> Iterator[str]:
    """Every `package.name` and `from package import name`, as dotted names."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def named(module: str) -> Iterator[str]:
    """Every name that is given to something."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


@pytest.mark.parametrize("module", DOMAIN)
def test_the_domain_has_no_io_no_clock_and_no_randomness(module: str) -> None:
    for name in imported(module):
        assert any(name == pure or name.startswith(f"{pure}.") for pure in PURE), name
    calls = {
        node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name)
    }
    assert calls & IMPURE_CALLS == set()


def test_all_sql_is_in_the_store() -> None:
    sql = {
        module
        for module in MODULES
        if {"sqlalchemy.text", "sqlalchemy.select", "sqlalchemy.sql"} & set(imported(module))
    }
    assert sql
    assert {module for module in sql if not module.startswith("store/")} == set()


@pytest.mark.parametrize("module", MODULES)
def test_names_are_those_of_the_glossary(module: str) -> None:
    for name in named(module):
        assert name.strip("_") not in FORBIDDEN_NAMES or module.startswith("sim/"), name
        assert not name.endswith(FORBIDDEN_ENDINGS) or name in FRAMEWORKS, name


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[^\w-]", line)[0] for line in project["dependencies"]}
    packages = {name.partition(".")[0] for module in MODULES for name in imported(module)}
    foreign = packages - set(sys.stdlib_module_names) - {"paywatch"}
    distributions = packages_distributions()
    needed = {distributions[package][0].lower().replace("_", "-") for package in foreign}
    assert needed | DRIVERS == declared

"""Results on stdout: one JSON document, or a few lines and small tables for people."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

WIDE = 200  # columns, where no terminal sets a limit: ids and hashes are not to be broken


def emit_json(document: Mapping[str, Any]) -> None:
    """Print the one JSON document of a command."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False, default=str))


def console() -> Console:
    """People's side of stdout; what is printed is text, never markup."""
    width = None if sys.stdout.isatty() else WIDE
    return Console(width=width, markup=False, emoji=False, highlight=False, soft_wrap=True)


def error_console() -> Console:
    """People's side of stderr."""
    width = None if sys.stderr.isatty() else WIDE
    return Console(stderr=True, width=width, markup=False, emoji=False, highlight=False)


def say(*sentences: str) -> None:
    """Print sentences, a line each."""
    for sentence in sentences:
        console().print(visible(sentence))


def show_fields(fields: Mapping[str, object]) -> None:
    """Print names and values, leaving out those without one."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields.items():
        if value is not None and value != "":
            table.add_row(name.replace("_", " "), visible(str(value)))
    console().print(table)


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else visible(str(value)) for value in row))
    console().print(table)


def visible(text: str) -> str:
    """Replace what could steer a terminal: a payer's memo holds any bytes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def short(account: str) -> str:
    """Abbreviate an account for a table; JSON has all of it."""
    return f"{account[:6]}…{account[-4:]}"

"""Results on stdout: one JSON document, or a few lines and small tables for people."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

WIDE = 500  # columns, where no terminal sets a limit: there a row is a line
_BOUNDLESS = 100_000  # columns


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
    """Print names and values, a line each, leaving out those without a value.

    A line is never broken: what is longer than the terminal can still be copied as one.
    """
    shown = {
        name.replace("_", " "): text for name, value in fields.items() if (text := _text(value))
    }
    widest = max(map(len, shown), default=0)
    for name, text in shown.items():
        console().print(Text.assemble((name.ljust(widest), "dim"), "  ", text))


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; where the screen is too narrow for one, each row as a block of fields.

    Only sentences are wrapped, and between words: an id that is cut in two cannot be copied.
    """
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    texts = [[_text(value) for value in row] for row in rows]
    for number, column in enumerate(columns):
        cells = [column, *(row[number] for row in texts)]
        words = (word for cell in cells for word in cell.split(" "))
        table.add_column(column, min_width=max(map(cell_len, words)))
    for row in texts:
        table.add_row(*row)
    screen = console()
    needed = Measurement.get(screen, screen.options.update(max_width=_BOUNDLESS), table).minimum
    if needed <= screen.width:
        screen.print(table)
        return
    say(title)
    for row in texts:
        say("")
        show_fields(dict(zip(columns, row, strict=True)))
    say("")


def _text(value: object) -> str:
    return "" if value is None else visible(str(value))


def visible(text: str) -> str:
    """Replace what could steer a terminal: a payer's memo holds any bytes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def short(account: str) -> str:
    """Abbreviate an account for a table; JSON has all of it."""
    return f"{account[:6]}…{account[-4:]}"

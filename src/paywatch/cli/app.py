"""All commands under one name."""

from importlib.metadata import version
from typing import Annotated

import typer

from paywatch.cli import (
    audit,
    care,
    credit,
    delivery,
    demo,
    explain,
    network,
    serving,
    setup,
    shop,
    stream,
)
from paywatch.cli.running import HonestGroup

app = typer.Typer(
    name="paywatch",
    cls=HonestGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",  # paragraphs are filled anew for the terminal
    help="Watches the Stellar ledger for merchants: each payment settled exactly once, each told"
    " by a signed webhook.",
    epilog="Settings are PAYWATCH_* variables or a TOML file that PAYWATCH_CONFIG names;"
    " `paywatch doctor` says what is wrong with them. Try `paywatch demo` first.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"paywatch {version('paywatch')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Hold the options of the program itself."""


app.command("migrate")(setup.migrate)
app.add_typer(shop.merchant, name="merchant")
app.add_typer(shop.session, name="session")
app.add_typer(credit.credit, name="credit")
app.add_typer(delivery.delivery, name="delivery")
app.add_typer(delivery.endpoint, name="endpoint")
app.add_typer(stream.stream, name="stream")
app.command("run")(serving.run)
app.command("backfill")(care.backfill)
app.command("recover")(care.recover)
app.command("audit")(audit.audit)
app.command("explain")(explain.explain)
app.command("doctor")(setup.doctor)
app.command("sim")(network.sim)
app.command("demo")(demo.demo)


def main() -> None:
    """Run the console script."""
    app()

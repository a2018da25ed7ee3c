"""The command that runs the daemon."""

import asyncio
from typing import Annotated

import typer

from paywatch.cli.running import StopSignals, load_settings
from paywatch.cli.running import run as run_coroutine
from paywatch.config import Settings
from paywatch.wiring import Role, run_daemon


def run(
    *,
    roles: Annotated[
        list[Role] | None,
        typer.Option("--role", help="Only this role; may be repeated. All of them by default."),
    ] = None,
) -> None:
    """Watch the ledger, settle payments, deliver webhooks, until SIGTERM or Ctrl-C.

    The first signal stops gracefully: the batch and the webhook attempts in flight are finished.
    A second one stops at once; nothing is lost by it, only done again later.

    Logs go to stderr. Health and metrics are on PAYWATCH_HTTP_HOST and PAYWATCH_HTTP_PORT.
    """
    run_coroutine(_serve(load_settings(daemon=True), frozenset(roles or Role)))


async def _serve(settings: Settings, roles: frozenset[Role]) -> None:
    stop = asyncio.Event()
    with StopSignals(stop):
        await run_daemon(settings, roles, stop)

"""The demo command: goes on until Ctrl-C, or shows three paid sessions and ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from paywatch.cli.demo.child import Child
from paywatch.cli.demo.runs import keep_paying, pay_three
from paywatch.cli.demo.scene import USUAL_PORT, Scene, open_scene
from paywatch.cli.demo.shop import Town, build_town
from paywatch.cli.output import say
from paywatch.cli.running import StopSignals, run
from paywatch.config import CONFIG_VARIABLE
from paywatch.service.waiting import unless
from paywatch.telemetry import configure_logging

ONCE_INTERVAL_S: Final = 1.0  # between ledgers
INTERVAL_S: Final = 2.0


def demo(
    *,
    once: Annotated[
        bool, typer.Option("--once", help="End after three sessions were paid and told of.")
    ] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Keep everything in this directory; else in one that is removed."),
    ] = None,
    http_port: Annotated[
        int,
        typer.Option(
            help="Where health and metrics are, if it is free; 0 takes any port, as --once does.",
            min=0,
            max=65_535,
        ),
    ] = USUAL_PORT,
    time_limit: Annotated[
        float, typer.Option(help="Seconds that --once may take.", min=0.1, max=3600)
    ] = 60.0,
) -> None:
    """See paywatch work: a simulated network, a merchant, customers who pay, and the daemon.

    Nothing else is needed, and nothing is left behind. The daemon is a process of its own: kill
    it (`kill -9 PID`) and see that every session still ends paid once, and is told of once.
    """
    configure_logging("auto", "error")
    run(_demo(data_dir, 0 if once else http_port, time_limit if once else None))


async def _demo(data_dir: Path | None, port: int, time_limit_s: float | None) -> None:
    stop = asyncio.Event()
    interval_s = INTERVAL_S if time_limit_s is None else ONCE_INTERVAL_S
    with StopSignals(stop):
        say("Starting PostgreSQL, a simulated Stellar network, a merchant and the daemon …")
        async with open_scene(data_dir, interval_s, port) as scene:
            work = _show(scene, stop) if time_limit_s is None else _prove(scene, time_limit_s)
            if await unless(stop, work) is False:
                raise typer.Exit(1)


async def _show(scene: Scene, stop: asyncio.Event) -> bool:
    async with _town_with_daemon(scene) as town:
        _say_where_to_look(scene, town)
        await keep_paying(town, stop)
    return True


async def _prove(scene: Scene, time_limit_s: float) -> bool:
    return await pay_three(scene, _town_with_daemon, time_limit_s)


@asynccontextmanager
async def _town_with_daemon(scene: Scene) -> AsyncIterator[Town]:
    """The town, and the daemon beside it, stopped gracefully at the end."""
    child = Child(scene.config_path, scene.log_path, say, scene.guard)
    async with asyncio.TaskGroup() as group:
        daemon = group.create_task(child.run())
        town = await build_town(scene)
        await child.wait_started()
        try:
            yield town
        finally:
            daemon.cancel()


def _say_where_to_look(scene: Scene, town: Town) -> None:
    config = f"{CONFIG_VARIABLE}={scene.config_path}"
    say(
        "",
        f"database   {scene.settings.database_url.get_secret_value()}"
        if scene.settings.database_url
        else "",
        f"metrics    {scene.http_url}/metrics",
        f"health     {scene.http_url}/health/ready",
        f"network    {scene.network.url}/payments?join=transactions",
        f"log        {scene.log_path}",
        "",
        "In another terminal:",
        f"  export {config}",
        "  paywatch session list",
        "  paywatch session create"
        f" --merchant {town.merchant.merchant_id} --amount 3 --asset native",
        "  paywatch audit",
        "  kill -9 PID   (the daemon's: it is started again, and nothing is lost)",
        "",
        "Ctrl-C ends the demo.",
        "",
    )

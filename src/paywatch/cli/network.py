"""The command that runs a simulated network."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from paywatch.cli.output import say
from paywatch.cli.running import StopSignals
from paywatch.cli.running import run as run_coroutine
from paywatch.sim.faults import FaultSettings
from paywatch.sim.horizon import HorizonSettings
from paywatch.sim.network import NetworkSettings, SimNetwork
from paywatch.sim.ratelimit import Quota
from paywatch.sim.streaming import StreamSettings
from paywatch.telemetry import configure_logging


def sim(
    *,
    host: Annotated[str, typer.Option(help="The address that it listens on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="The port; 0 takes a free one.", min=0, max=65535)
    ] = 8000,
    ledger_interval: Annotated[
        float, typer.Option(help="Seconds between two ledgers.", min=0.1, max=3600)
    ] = 5.0,
    stream_interval: Annotated[
        float, typer.Option(help="Seconds between two looks of a stream.", min=0, max=3600)
    ] = 0.0,
    fault_rate: Annotated[
        float, typer.Option(help="How often each fault strikes a reader, 0 to 1.", min=0, max=1)
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same faults.")] = 0,
    requests_per_hour: Annotated[
        int | None, typer.Option(help="Horizon's rate limit; none if absent.", min=1)
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option(help="A file that lets the network go on after a restart.", dir_okay=False),
    ] = None,
) -> None:
    """Run a simulated Stellar network with its Horizon, until Ctrl-C.

    It takes real signed envelopes (POST /transactions) and gives lumens (GET /friendbot?addr=G…).
    It is a toy: nothing on it has any worth.
    """
    configure_logging("auto", "warning")
    settings = NetworkSettings(
        host=host,
        port=port,
        close_every_s=ledger_interval,
        horizon=HorizonSettings(
            stream=StreamSettings(update_s=stream_interval),
            quota=Quota(requests_per_hour) if requests_per_hour else None,
        ),
        faults=FaultSettings.everything(fault_rate, seed),
        journal=journal,
    )
    run_coroutine(_serve(settings))


async def _serve(settings: NetworkSettings) -> None:
    stop = asyncio.Event()
    with StopSignals(stop):
        async with SimNetwork(settings) as network:
            say(
                f"A simulated Horizon listens on {network.url}",
                "",
                "To let paywatch watch it:",
                f"  export PAYWATCH_HORIZON_URL={network.url}",
                f"  export PAYWATCH_NETWORK_PASSPHRASE='{network.passphrase}'",
                "",
                "To look, and to have an account funded:",
                f"  curl '{network.url}/payments?join=transactions'",
                f"  curl '{network.url}/friendbot?addr=G…'",
            )
            await stop.wait()

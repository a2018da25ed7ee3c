"""What a demo stands on: database, network, merchant's server, settings; all in one directory."""

import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

from paywatch import config
from paywatch.cli.demo.guardian import guarded
from paywatch.cli.running import open_house
from paywatch.config import CONFIG_VARIABLE, Settings
from paywatch.errors import ConfigError
from paywatch.sim.ledger import Settings as LedgerSettings
from paywatch.sim.merchant import Merchant
from paywatch.sim.network import NetworkSettings, SimNetwork
from paywatch.sim.wallet import NATIVE, asset_of
from paywatch.web import listen_on, url_of
from paywatch.webhooks.sealing import generate_key
from paywatch.wiring import House, open_embedded

HOST: Final = "127.0.0.1"
USUAL_PORT: Final = 8480

# Known before the network is: a network that goes on from its journal needs its rates at once.
ISSUER: Final = "issuer"
USD: Final = asset_of("USD", ISSUER)
USD_PER_LUMEN: Final = Fraction(1, 8)


@dataclass(frozen=True, slots=True)
class Scene:
    """A demo's surroundings.

    Attributes:
        house: the parts of paywatch in this process, for what a merchant's side does.
        config_path: the settings, also for the daemon and for other terminals.
        guard: told the pid of the daemon, which must not outlive a demo that is killed.
    """

    directory: Path
    config_path: Path
    settings: Settings
    house: House
    network: SimNetwork
    merchant: Merchant
    guard: Callable[[int], None]

    @property
    def log_path(self) -> Path:
        """Where the daemon's log goes."""
        return self.directory / "daemon.log"

    @property
    def http_url(self) -> str:
        """Where the daemon serves health and metrics."""
        return f"http://{HOST}:{self.settings.http_port}"


@asynccontextmanager
async def open_scene(
    data_dir: Path | None, ledger_interval_s: float, preferred_port: int
) -> AsyncIterator[Scene]:
    """Start everything but the daemon; a directory that was given is kept, another removed.

    The daemon listens on `preferred_port` if it is free (0: any), else on any that is.
    """
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(_directory(data_dir))
        guard = await stack.enter_async_context(guarded(directory, remove=data_dir is None))
        url = await stack.enter_async_context(open_embedded(directory / "postgres"))
        merchant = await stack.enter_async_context(Merchant())
        network = await stack.enter_async_context(
            SimNetwork(
                NetworkSettings(
                    close_every_s=ledger_interval_s,
                    ledger=LedgerSettings(rates={(NATIVE, USD): USD_PER_LUMEN}),
                    journal=directory / "network.jsonl",
                )
            )
        )
        path = directory / "paywatch.toml"
        _write_settings(path, directory, url, network, preferred_port)
        settings = config.load({CONFIG_VARIABLE: str(path)})
        house = await stack.enter_async_context(open_house(settings))
        yield Scene(directory, path, settings, house, network, merchant, guard)


@contextmanager
def _directory(data_dir: Path | None) -> Iterator[Path]:
    if data_dir is not None:
        data_dir.mkdir(parents=True, exist_ok=True)
        yield data_dir.resolve()
        return
    directory = Path(tempfile.mkdtemp(prefix="paywatch-demo-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _write_settings(
    path: Path, directory: Path, url: str, network: SimNetwork, preferred_port: int
) -> None:
    """Write the settings for whoever joins the demo; the file holds a key, and is ours alone."""
    kept = path.with_name("secret_key")
    if not kept.exists():
        _write_private(kept, generate_key() + "\n")
    values = {
        "database_url": url,
        "data_dir": str(directory),
        "secret_key": kept.read_text().strip(),
        "horizon_url": network.url,
        "network_passphrase": network.passphrase,
        "http_host": HOST,
        "http_port": _free_port(preferred_port),
        "allow_private_webhooks": True,
        "log_format": "json",
        "recover_interval": 5,
    }
    # A JSON string, number or boolean is a TOML one.
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in values.items()]
    _write_private(path, "".join(lines))


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def _free_port(preferred: int) -> int:
    """Find a port that is free now: the preferred one, if it is."""
    try:
        listening = listen_on(HOST, preferred)
    except ConfigError:
        listening = listen_on(HOST, 0)
    with listening:
        return int(url_of(listening).rpartition(":")[2])

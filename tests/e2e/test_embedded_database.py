"""Without a database of one's own: the daemon brings one, commands share it, none is left."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from support.program import processes_of, run_program, running
from support.site import Site, open_site


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A short path: a socket's name has 107 bytes."""
    directory = Path(tempfile.mkdtemp(prefix="pw-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
async def site(data_dir: Path) -> AsyncIterator[Site]:
    async with open_site("") as site:
        yield site.having(data_dir=str(data_dir), secret_key="", log_level="warning")


def servers(directory: Path) -> list[str]:
    """The PostgreSQL servers whose data are in a directory."""
    return [
        command for command in processes_of(f"{directory}/postgres") if "/postgres -D" in command
    ]


async def test_a_daemon_and_commands_share_one_database(site: Site, data_dir: Path) -> None:
    loud = site.having(log_level="info")
    url = ("--webhook-url", f"{site.merchant.url}/hook")
    names = ("--name", "Shop", "--account", site.shop.account_id)
    async with running(loud.environ, "run") as daemon:
        await daemon.url()
        made = await run_program(site.environ, "merchant", "create", *names, *url, "--json")
        assert made.code == 0, made.err
        wanted = ("--merchant", made.document["merchant_id"], "--amount", "2", "--asset", "native")
        opened = await run_program(site.environ, "session", "create", *wanted, "--json")
        await site.pay(site.payment(opened.document))
        await site.merchant.wait_for(1)
        assert servers(data_dir)
        await daemon.kill()
    assert servers(data_dir), "a killed daemon cannot stop its server"
    session_id = opened.document["id"]
    shown = await run_program(site.environ, "session", "show", session_id, "--json")
    assert shown.document["status"] == "paid"
    assert not servers(data_dir), "the last to leave stops the server, the killed not counted"
    assert (data_dir / "secret_key").stat().st_mode & 0o077 == 0


async def test_migrate_says_what_it_did_with_a_database_of_its_own(site: Site) -> None:
    """It said that there was nothing to do: opening the database had done it already."""
    first = await run_program(site.environ, "migrate", "--json")
    again = await run_program(site.environ, "migrate", "--json")
    assert (first.document["from"], first.document["changed"]) == (None, True)
    assert (again.document["from"], again.document["changed"]) == (first.document["to"], False)

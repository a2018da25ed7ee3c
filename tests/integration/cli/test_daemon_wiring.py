"""The daemon in this process: what it tells systemd, metrics and health, and how it dies."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from paywatch import config
from paywatch.cli.failures import Failure, failure_of
from paywatch.errors import WrongNetwork
from paywatch.service import gauges as gauges_module
from paywatch.service.audit import Auditor
from paywatch.service.listen import Listener
from paywatch.service.lulls import Lulls
from paywatch.service.recover import Recovery
from paywatch.service.watchdog import NothingHelps, Watchdog
from paywatch.sim import LedgerSettings, NetworkSettings, SimNetwork
from paywatch.store.engine import create_engine
from paywatch.telemetry import Progress
from paywatch.wiring import House, Role, daemon, furnish, open_database, roles, run_daemon
from support.commands import answer
from support.site import Document, Site, open_site


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with open_site(database_url, close_every_s=0.05) as site:
        yield site


@asynccontextmanager
async def open_house(site: Site) -> AsyncIterator[House]:
    settings = config.load(site.settings)
    async with (
        open_database(settings) as database,
        furnish(settings, database.engine) as house,
    ):
        yield house


async def run(site: Site, stop: asyncio.Event, *chosen: Role) -> None:
    async with asyncio.timeout(20):
        await run_daemon(config.load(site.settings), chosen or tuple(Role), stop)


async def open_session(site: Site) -> Document:
    names = ("--name", "Shop", "--account", site.shop.account_id)
    url = ("--webhook-url", f"{site.merchant.url}/hook")
    shop = await answer(site.environ, "merchant", "create", *names, *url)
    wanted = ("--merchant", shop["merchant_id"], "--amount", "5", "--asset", "native")
    made: Document = await answer(site.environ, "session", "create", *wanted)
    return made


async def test_horizons_documents_wait_for_the_settlements_of_the_same_house(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited_for: list[Lulls] = []

    async def wait(lulls: Lulls) -> None:
        waited_for.append(lulls)

    monkeypatch.setattr(Lulls, "wait", wait)
    async with open_house(site) as house:
        await house.source.root()
        assert waited_for
        assert all(lulls is house.settler.lulls for lulls in waited_for)


async def test_a_role_that_crashes_ends_the_daemon(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(_self: Listener, _stop: asyncio.Event) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Listener, "run", crash)
    with pytest.raises(ExceptionGroup) as caught:
        await run(site, asyncio.Event())
    assert caught.group_contains(ZeroDivisionError)


async def test_a_role_that_just_ends_ends_the_daemon(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def end(_self: Listener, _stop: asyncio.Event) -> None:
        return

    monkeypatch.setattr(Listener, "run", end)
    with pytest.raises(ExceptionGroup) as caught:
        await run(site, asyncio.Event())
    assert caught.group_contains(roles.RoleEnded, match="the role listen ended")


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket that systemd listens on."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        listening.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        yield listening


async def test_another_network_that_comes_later_ends_the_daemon(
    site: Site, systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roles, "NETWORK_RETRY_S", 0.05)
    async with SimNetwork() as network:
        port = int(network.url.rpartition(":")[2])
    away = site.having(horizon_url=f"http://127.0.0.1:{port}")
    other = NetworkSettings(port=port, ledger=LedgerSettings(passphrase="Another"))
    running = asyncio.create_task(run(away, asyncio.Event(), Role.LISTEN))
    await asyncio.get_running_loop().sock_recv(systemd, 4096)  # it has started without Horizon
    async with SimNetwork(other):
        with pytest.raises(ExceptionGroup) as caught:
            await running
    assert caught.group_contains(WrongNetwork)


async def test_systemd_is_told_of_the_start_and_the_stop(
    site: Site, systemd: socket.socket
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    running = asyncio.create_task(run(site, stop))
    started = await loop.sock_recv(systemd, 4096)
    assert started.startswith(b"READY=1\nSTATUS=dispatch, listen, recover, serve; http://")
    stop.set()
    assert (await loop.sock_recv(systemd, 4096)).startswith(b"STOPPING=1\n")
    await running


async def test_lesson_13_the_watchdog_is_fed_by_progress_only(
    site: Site, systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(_self: Listener, stop: asyncio.Event) -> None:
        follower = _self.follower
        follower.progress.watch("listen:stuck", timedelta(seconds=-1), follower.clock())
        await stop.wait()

    monkeypatch.setattr(Listener, "run", hang)
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    running = asyncio.create_task(run(site, stop))
    while b"STATUS=stalled: listen:stuck" not in await loop.sock_recv(systemd, 4096):
        continue
    for _ in range(3):
        assert b"WATCHDOG=1" not in await loop.sock_recv(systemd, 4096)
    stop.set()
    await running


@pytest.mark.parametrize(("interval", "audits"), [("60", True), ("0", False)])
async def test_the_recover_role_audits_unless_that_is_switched_off(
    site: Site, monkeypatch: pytest.MonkeyPatch, interval: str, audits: bool
) -> None:
    audited, recovers = False, asyncio.Event()

    async def audit(_self: Auditor, stop: asyncio.Event, _progress: Progress) -> None:
        nonlocal audited
        audited = True
        await stop.wait()

    async def recover(_self: Recovery, stop: asyncio.Event, _progress: Progress) -> None:
        recovers.set()
        await stop.wait()

    monkeypatch.setattr(Auditor, "run", audit)
    monkeypatch.setattr(Recovery, "run", recover)
    stop = asyncio.Event()
    running = asyncio.create_task(run(site.having(audit_interval=interval), stop, Role.RECOVER))
    await recovers.wait()
    stop.set()
    await running
    assert audited is audits


def give_up(_self: Watchdog, _cursors: object, _tip: object) -> None:
    raise NothingHelps("nothing helps")


async def test_lesson_13_where_nothing_helps_the_process_ends_itself(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watchdog, "look", give_up)
    with pytest.raises(ExceptionGroup) as caught:
        await run(site, asyncio.Event())
    assert caught.group_contains(NothingHelps)
    assert failure_of(caught.value) == Failure(1, ("nothing helps",))


async def test_what_clings_to_life_does_not_keep_the_process_from_its_end(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = asyncio.Event()

    async def cling(_self: Listener, _stop: asyncio.Event) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await ended.wait()

    monkeypatch.setattr(Listener, "run", cling)
    monkeypatch.setattr(Watchdog, "look", give_up)
    monkeypatch.setattr(daemon, "ENDING_S", 0.05)
    codes: list[int] = []

    def die(code: int) -> None:
        codes.append(code)
        ended.set()

    monkeypatch.setattr(os, "_exit", die)
    with pytest.raises(ExceptionGroup):
        await run(site, asyncio.Event())
    assert codes == [1]


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"paywatch_{name}", labels)


async def test_gauges_show_what_is_in_the_database_and_at_horizon(site: Site) -> None:
    session = await open_session(site)
    await site.pay(site.payment(session))
    async with open_house(site) as house:
        gauges = house.gauges(upstream=True)
        await gauges.run_once()
        registry = house.metrics.registry
        account = site.shop.account_id
        assert value(registry, "sessions", status="pending") == 1
        assert value(registry, "sessions", status="paid") == 0
        assert value(registry, "outbox_deliveries") == 0
        assert value(registry, "upstream_ledger") is not None
        lag = value(registry, "lag_ledgers", stream=account)
        assert lag is not None
        assert lag > 0
        assert gauges.lags == {account: None}, "nothing has been read yet"
        await answer(site.environ, "backfill")
        await gauges.run_once()
        assert value(registry, "sessions", status="paid") == 1
        assert value(registry, "outbox_deliveries") == 1
        assert value(registry, "dead_letters") == 0


async def test_lesson_13_gauges_that_hang_are_seen_for_the_watchdog_looks_through_them(
    site: Site,
) -> None:
    async with open_house(site) as house:
        gauges = house.gauges(upstream=True)
        beats = house.progress
        assert beats.stale(house.clock() + timedelta(days=1)) == ["gauges"]
        began = house.clock()
        beats.watch("gauges", timedelta(0), began)
        stop = asyncio.Event()
        running = asyncio.create_task(gauges.run(stop))
        while beats.stale(began + timedelta(microseconds=1)):  # noqa: ASYNC110 - a beat is no event
            await asyncio.sleep(0)
        stop.set()
        await running


async def test_gauges_outlive_what_they_look_at(site: Site) -> None:
    async with open_house(site.having(horizon_url="http://127.0.0.1:9")) as house:
        gauges = house.gauges(upstream=True)
        await gauges.run_once()
        assert gauges.tip_closed_at is None
        away = replace(house, engine=create_engine("postgresql://u@127.0.0.1:9/x"))
        await away.gauges(upstream=False).run_once()


async def test_sessions_that_are_over_are_counted_seldom_once_they_are_many(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full count of ten million rows every ten seconds would be most of the database's work."""
    monkeypatch.setattr(gauges_module, "MANY_SESSIONS", 0)
    session = await open_session(site)
    async with open_house(site) as house:
        gauges = house.gauges(upstream=True)
        await gauges.run_once()
        await site.pay(site.payment(session))
        await answer(site.environ, "backfill")
        await gauges.run_once()
        registry = house.metrics.registry
        assert value(registry, "sessions", status="pending") == 0
        assert value(registry, "sessions", status="paid") == 0, "not counted again yet"
        await house.gauges(upstream=True).run_once()
        assert value(registry, "sessions", status="paid") == 1

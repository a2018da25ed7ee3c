"""`paywatch run` as a process: from signed envelopes on a ledger to signed webhooks."""

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest
from sqlalchemy import make_url
from standardwebhooks.webhooks import Webhook

from paywatch.sim import Answer, NetworkSettings, SimNetwork
from paywatch.webhooks.sealing import generate_key
from support.commands import answer, command
from support.databases import away
from support.pgbouncer import behind_pgbouncer
from support.program import Program, run_program, running
from support.site import USD, Document, Site, open_site


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with open_site(database_url) as site:
        yield site


async def open_shop(site: Site) -> Document:
    url = f"{site.merchant.url}/hook"
    names = ("--name", "Shop", "--account", site.shop.account_id, "--webhook-url", url)
    made: Document = await answer(site.environ, "merchant", "create", *names)
    return made


async def open_session(site: Site, shop: Document, amount: str, asset: str = "native") -> Document:
    wanted = ("--merchant", shop["merchant_id"], "--amount", amount, "--asset", asset)
    made: Document = await answer(site.environ, "session", "create", *wanted)
    return made


async def get(url: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        return response.status, await response.text()


async def ready(url: str) -> dict[str, Any]:
    status, text = await get(f"{url}/health/ready")
    body: dict[str, Any] = json.loads(text)
    assert status == (200 if body["ready"] else 503)
    return body


async def test_sessions_are_paid_in_three_ways_and_told_once(site: Site) -> None:
    shop = await open_shop(site)
    usd = f"{USD.code}:{USD.issuer}"
    native = await open_session(site, shop, "12.5")
    credit = await open_session(site, shop, "20", usd)
    path = await open_session(site, shop, "7.25", usd)
    async with running(site.environ, "run") as daemon:
        url = await daemon.url()
        txs = await site.pay(site.payment(native), site.payment(credit), site.path_payment(path))
        webhooks = await site.merchant.wait_for(3)
        metrics = (await get(f"{url}/metrics"))[1]
        live, _ = await get(f"{url}/health/live")
        assert await daemon.stop() == 0, daemon.said
    assert live == 200
    assert re.search(r'paywatch_credits_total\{outcome="applied"\} 3\.0', metrics)
    verifier = Webhook(shop["webhook_secret"])
    for webhook in webhooks:
        verifier.verify(webhook.body, dict(webhook.headers))
    for session, tx in zip((native, credit, path), txs, strict=True):
        shown = await answer(site.environ, "session", "show", session["id"])
        assert shown["status"] == "paid"
        assert shown["paid_how"] == "exact"
        assert [payment["tx_hash"] for payment in shown["payments"]] == [tx.hash]
        assert len(site.webhooks_of(session["id"])) == 1
        assert site.webhooks_of(session["id"]) == [event["id"] for event in shown["events"]]
        assert [event["delivery"]["state"] for event in shown["events"]] == ["delivered"]
    assert shop["webhook_secret"] not in daemon.said
    assert (await answer(site.environ, "audit"))["healthy"]


async def test_an_account_that_is_not_on_the_ledger_is_no_alarm_and_its_sessions_expire(
    site: Site,
) -> None:
    unfunded = site.network.wallet("unfunded").account_id
    names = ("--name", "Shop", "--account", unfunded)
    shop = await answer(site.environ, "merchant", "create", *names)
    wanted = ("--amount", "5", "--asset", "native", "--expires-in", "1s")
    await answer(site.environ, "session", "create", "--merchant", shop["merchant_id"], *wanted)
    async with running(site.environ, "run") as daemon:
        url = await daemon.url()
        await daemon.event("session_expired")
        async with asyncio.timeout(60):
            while (listen := (await ready(url))["parts"]["listen"])["state"] == "starting":
                continue
        metrics = (await get(f"{url}/metrics"))[1]
    assert listen["ready"], listen
    assert listen["message"].endswith(f"waits to be funded, {unfunded} among them")
    assert re.search(r'paywatch_stream_state="unfunded",stream="\w+"\} 1\.0', metrics)


async def test_a_graceful_stop_finishes_the_attempt_in_flight(site: Site) -> None:
    shop = await open_shop(site)
    session = await open_session(site, shop, "1")
    site.merchant.answer(Answer(delay_s=1.0))
    async with running(site.environ, "run") as daemon:
        await daemon.url()
        await site.pay(site.payment(session))
        await site.merchant.wait_for(1)
        assert await daemon.stop(signal.SIGINT) == 0, daemon.said
    shown = await answer(site.environ, "session", "show", session["id"])
    assert [event["delivery"]["state"] for event in shown["events"]] == ["delivered"]


async def test_a_stop_while_the_database_is_away_does_not_wait_for_it(
    site: Site, cluster: str, database_url: str
) -> None:
    """It hung until systemd killed it: every loop waited for the database to come back."""
    session = await open_session(site, await open_shop(site), "1")
    async with running(site.environ, "run") as daemon:
        await daemon.event("leading")
        with away(cluster, make_url(database_url).database or ""):
            await site.pay(site.payment(session))
            await daemon.event("leadership_lost")
            await daemon.wait_for(lambda line: line.get("event") == "database_retry", count=3)
            daemon.process.send_signal(signal.SIGTERM)
            assert await daemon.ended(timeout_s=15) == 0, daemon.said
    async with running(site.environ, "run") as daemon:
        await site.merchant.wait_for(1)
        assert await daemon.stop() == 0


async def test_a_second_signal_ends_it_at_once(site: Site) -> None:
    shop = await open_shop(site)
    session = await open_session(site, shop, "1")
    site.merchant.default = Answer(hang=True)
    async with running(site.environ, "run") as daemon:
        await daemon.url()
        await site.pay(site.payment(session))
        await site.merchant.wait_for(1)
        daemon.process.send_signal(signal.SIGTERM)
        await daemon.event("stopping")
        assert daemon.process.returncode is None
        daemon.process.send_signal(signal.SIGTERM)
        assert await daemon.ended(timeout_s=5) != 0
    assert "Traceback" not in daemon.said


async def test_another_network_is_refused(site: Site) -> None:
    ended = await run_program(site.having(network_passphrase="Another").environ, "run")
    assert ended.code == 1
    assert "PAYWATCH_NETWORK_PASSPHRASE" in ended.err
    assert "Traceback" not in ended.err


async def test_another_schema_is_refused(empty_database_url: str) -> None:
    async with open_site(empty_database_url) as site:
        ended = await run_program(site.environ, "run")
    assert ended.code == 1
    assert "run `paywatch migrate`" in ended.err


async def test_a_pooler_in_transaction_mode_is_refused(
    site: Site, database_url: str, tmp_path: Path
) -> None:
    """Two daemons would lead one stream there, and none of them would learn of it."""
    async with behind_pgbouncer(database_url, "transaction", tmp_path) as url:
        for role in ("listen", "recover"):
            ended = await run_program(site.having(database_url=url).environ, "run", "--role", role)
            assert ended.code == 1
            assert "PAYWATCH_DATABASE_URL" in ended.err
            assert "pool_mode=session" in ended.err


async def test_behind_a_pooler_in_session_mode_it_works(
    site: Site, database_url: str, tmp_path: Path
) -> None:
    session = await open_session(site, await open_shop(site), "1")
    async with (
        behind_pgbouncer(database_url, "session", tmp_path) as url,
        running(site.having(database_url=url).environ, "run") as daemon,
    ):
        await daemon.url()
        await site.pay(site.payment(session))
        await site.merchant.wait_for(1)
        assert await daemon.stop() == 0, daemon.said
    assert (await answer(site.environ, "session", "show", session["id"]))["status"] == "paid"


async def test_a_port_in_use_is_told_by_its_settings_name(site: Site) -> None:
    port = site.network.url.rpartition(":")[2]
    ended = await run_program(site.having(http_port=port).environ, "run")
    assert ended.code == 1
    assert "PAYWATCH_HTTP_PORT" in ended.err


async def test_horizon_may_come_later(site: Site) -> None:
    """The daemon starts without it, says that it is not ready, and goes on when it comes."""
    async with SimNetwork() as network:
        port = int(network.url.rpartition(":")[2])
    away = site.having(horizon_url=f"http://127.0.0.1:{port}")
    async with running(away.environ, "run") as daemon:
        url = await daemon.url()
        await daemon.event("upstream_not_read")
        body = await ready(url)
        assert not body["ready"]
        assert body["parts"]["upstream"]["state"] == "unreachable"
        assert body["parts"]["database"]["ready"]
        async with SimNetwork(NetworkSettings(port=port)) as late:
            assert late.passphrase == site.network.passphrase
            await daemon.event("network_reached")
        assert await daemon.stop() == 0, daemon.said


async def test_a_dispatcher_alone_needs_no_horizon(site: Site) -> None:
    nowhere = site.having(horizon_url="http://127.0.0.1:9")
    async with running(nowhere.environ, "run", "--role", "dispatch") as daemon:
        body = await ready(await daemon.url())
        assert body["ready"], body
        assert set(body["parts"]) == {"database", "migrations"}
        assert await daemon.stop() == 0


async def test_an_unfinished_backfill_is_resumed_at_the_start(site: Site) -> None:
    await open_shop(site)
    account = site.shop.account_id
    await _begin_backfill(site, account)
    async with running(site.environ, "run", "--role", "recover") as daemon:
        line = await daemon.event("backfill")
        assert line["stream"] == f"backfill:{account}:0"
        await daemon.url()
        assert await daemon.stop() == 0


async def _begin_backfill(site: Site, account: str) -> None:
    async with await psycopg.AsyncConnection.connect(
        site.settings["PAYWATCH_DATABASE_URL"], autocommit=True
    ) as conn:
        await conn.execute(
            "INSERT INTO cursors (stream, account, position, end_position, updated_at)"
            " VALUES (%s, %s, 0, %s, now())",
            (f"backfill:{account}:0", account, 4 << 32),
        )


async def test_the_log_is_json_and_holds_no_secret(site: Site, tmp_path: Path) -> None:
    key = generate_key()
    async with running(site.having(secret_key=key, data_dir=str(tmp_path)).environ, "run") as d:
        await d.url()
        assert await d.stop() == 0
    for line in d.lines:
        assert json.loads(line)["level"]
    assert key not in d.said


async def test_sim_serves_a_network_until_it_is_stopped(site: Site) -> None:
    async with running(site.environ, "sim", "--port", "0", "--ledger-interval", "0.1") as sim:
        url = await _url_of(sim)
        status, text = await get(url)
        assert status == 200
        assert json.loads(text)["network_passphrase"] == site.network.passphrase
        assert await sim.stop() == 0
    assert "export PAYWATCH_HORIZON_URL=" in sim.said


async def _url_of(sim: Program) -> str:
    line = await sim.wait_for(lambda said: "listens on" in said["text"])
    return str(line["text"]).split()[-1]


async def test_usage_errors_end_with_2(site: Site) -> None:
    assert (await command(site.environ, "run", "--role", "dance")).code == 2

"""kill -9 on the daemon, again and again, at moments drawn on a seed: nothing lost or doubled.

A moment is the n-th time that something is seen: a request to Horizon, a line of the log, a
webhook that arrived and has not been answered. So the kills hit between reading and settling,
right behind a commit, and in the middle of a POST.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from random import Random

import psycopg
import pytest

from paywatch.sim import Answer
from support.commands import answer
from support.program import Program, running
from support.site import USD, Document, Site, open_site

ROUNDS = 6
SESSIONS = 4  # opened and paid in each round


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with open_site(database_url) as site:
        yield site


async def _open_shop(site: Site) -> str:
    names = ("--name", "Shop", "--account", site.shop.account_id)
    url = ("--webhook-url", f"{site.merchant.url}/hook")
    return str((await answer(site.environ, "merchant", "create", *names, *url))["merchant_id"])


async def _open_sessions(site: Site, merchant_id: str, rng: Random) -> list[Document]:
    assets = rng.choices(["native", f"{USD.code}:{USD.issuer}"], k=SESSIONS)
    return [
        await answer(
            site.environ, "session", "create", "--merchant", merchant_id,
            "--amount", f"{rng.randint(1, 50)}", "--asset", asset,
        )
        for asset in assets
    ]  # fmt: skip


async def _pay(site: Site, sessions: list[Document], rng: Random) -> int:
    """Pay each in one of several ways; every one of them is paid in the end.

    Returns how many of them are paid twice.
    """
    twice = 0
    for session in sessions:
        way = rng.choice(["whole", "parts", "twice", "path"])
        if way == "path" and session["asset"] != "native":
            await site.pay(site.path_payment(session))
        elif way == "parts":
            half = f"{float(session['amount']) / 2:.7f}"
            await site.pay(site.payment(session, half))
            await site.pay(site.payment(session, half))
        elif way == "twice":
            await site.pay(site.payment(session), site.payment(session))
            twice += 1
        else:
            await site.pay(site.payment(session))
    return twice


async def _until_moment(site: Site, daemon: Program, rng: Random) -> str:
    """Wait for a moment of this round; which one, for the message of a failure."""
    kind, number = rng.choice(["request", "line", "webhook"]), rng.randint(1, 6)
    if kind == "request":
        number = (number + 1) // 2  # a quiet daemon asks three times at its start
        begin = site.network.requests.total
        await site.network.requests.wait_for(
            lambda _: site.network.requests.total >= begin + number
        )
    elif kind == "line":
        await daemon.log.wait_for(lambda _: daemon.log.total > number)
    else:
        begin = site.merchant.received.total
        site.merchant.answer(*[Answer(delay_s=0.05)] * number)
        await site.merchant.received.wait_for(
            lambda _: site.merchant.received.total >= begin + min(number, 2)
        )
    return f"{kind} {number}"


async def _expire_leases(site: Site) -> None:
    """Play the clock's part: the leases of the killed dispatcher run out now, not in a minute."""
    url = site.settings["PAYWATCH_DATABASE_URL"]
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        await conn.execute(
            "UPDATE deliveries SET lease_until = now() WHERE lease_token IS NOT NULL"
        )


def _paid_ids(site: Site) -> dict[str, list[str]]:
    """For each session the webhook ids that told of its payment, one for each delivery."""
    told: dict[str, list[str]] = {}
    for webhook in site.merchant.received:
        if webhook.type == "checkout.session.paid":
            subject = json.loads(webhook.body)["data"]["session_id"]
            told.setdefault(subject, []).append(webhook.id)
    return told


def _held(site: Site) -> set[str]:
    """The credits that the merchant was told are held."""
    return {
        json.loads(webhook.body)["data"]["credit"]
        for webhook in site.merchant.received
        if webhook.type == "payment.unapplied"
    }


@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", [20_261_120])
async def test_killed_at_any_moment_every_session_is_paid_once_and_told_by_one_id(
    site: Site, seed: int
) -> None:
    rng = Random(seed)
    merchant_id = await _open_shop(site)
    sessions: list[Document] = []
    moments: list[str] = []
    twice = 0
    for _ in range(ROUNDS):
        new = await _open_sessions(site, merchant_id, rng)
        sessions += new
        async with running(site.environ, "run") as daemon, asyncio.TaskGroup() as group:
            paying = group.create_task(_pay(site, new, Random(rng.random())))
            async with asyncio.timeout(20):
                moments.append(await _until_moment(site, daemon, rng))
            await daemon.kill()
            twice += await paying
        await _expire_leases(site)
    wanted = {session["id"] for session in sessions}
    async with running(site.environ, "run") as daemon:
        await daemon.url()
        async with asyncio.timeout(60):
            await site.merchant.received.wait_for(
                lambda _: set(_paid_ids(site)) >= wanted and len(_held(site)) == twice
            )
        assert await daemon.stop() == 0, daemon.said
    told = _paid_ids(site)
    for session in sessions:
        shown = await answer(site.environ, "session", "show", session["id"])
        assert shown["status"] == "paid", (seed, moments)
        assert [event["id"] for event in shown["events"]] == [told[session["id"]][0]]
        assert len(set(told[session["id"]])) == 1, (seed, moments, told)
    await _check_ledger(site, len(sessions) + twice)
    assert (await answer(site.environ, "audit"))["healthy"]


async def _check_ledger(site: Site, told: int) -> None:
    """Every operation to the shop is a credit, once; every event was delivered."""
    history = site.network.ledger.history
    received, sent = (
        {operation.id for operation in history.payments_of(wallet.account_id)}
        for wallet in (site.shop, site.customer)
    )
    url = site.settings["PAYWATCH_DATABASE_URL"]
    async with await psycopg.AsyncConnection.connect(url) as conn:
        rows = await (await conn.execute("SELECT operation_id FROM credits")).fetchall()
        assert sorted(row[0] for row in rows) == sorted(received & sent)
        states = await (await conn.execute("SELECT state FROM deliveries")).fetchall()
        assert states == [("delivered",)] * told

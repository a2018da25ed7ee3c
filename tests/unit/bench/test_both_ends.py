"""Horizon and the receiver of the benchmarks: a wrong one would make a fine figure."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bench.ledger import Recorded
from bench.live import Live
from bench.receiver import receiving
from paywatch.domain.ledger import Position

SHOP = "GSHOP"
BEGIN = Position.of(10)


def payments(count: int) -> Recorded:
    """A ledger with a payment in each."""
    records = [
        {"paging_token": str(int(Position.of(11 + n, 1, 1))), "created_at": f"at {n}"}
        for n in range(count)
    ]
    page = json.dumps({"_embedded": {"records": records}}).encode()
    return Recorded(
        passphrase="passphrase",
        seed="",
        asset="native",
        account=SHOP,
        begin=BEGIN,
        closed_at=datetime(2026, 11, 1, tzinfo=UTC),
        documents={"/": b'{"history_elder_ledger": 1}'},
        pages={str(int(BEGIN)): page},
        transactions=[],
    )


@pytest.fixture
async def live() -> AsyncIterator[tuple[Live, str]]:
    horizon, app = Live(payments(6)), web.Application()
    app.router.add_get("/{path:.*}", horizon.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield horizon, "http://{}:{}".format(*runner.addresses[0][:2])
    await runner.cleanup()


async def test_a_payment_is_on_pages_and_in_the_root_from_the_moment_it_is_shown(
    live: tuple[Live, str],
) -> None:
    horizon, url = live

    async def get(path: str, **query: str) -> Any:
        async with http.get(url + path, params=query) as response:
            return await response.json(content_type=None)

    async def tokens() -> list[int]:
        query = {"cursor": str(int(Position.of(11, 1, 1))), "limit": "3"}
        page = await get(f"/accounts/{SHOP}/payments", **query)
        return [int(record["paging_token"]) for record in page["_embedded"]["records"]]

    async with aiohttp.ClientSession() as http:
        assert await tokens() == []
        assert (await get("/"))["history_latest_ledger"] == 9
        before = time.monotonic()
        await horizon.show(6, 0)
        assert all(before <= at <= time.monotonic() for at in horizon.shown_at)
        assert await tokens() == [int(Position.of(ledger, 1, 1)) for ledger in (12, 13, 14)]
        assert (await get("/"))["history_latest_ledger"] == 16


async def test_a_stream_brings_each_as_it_is_shown_and_ends_at_its_limit(
    live: tuple[Live, str],
) -> None:
    horizon, url = live
    headers = {"Accept": "text/event-stream"}
    query = {"cursor": str(int(BEGIN)), "limit": "4"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.get(f"{url}/accounts/{SHOP}/payments", params=query) as response,
        asyncio.timeout(10),
    ):
        await horizon.opened.wait()
        await horizon.show(2, 0)
        body = (await response.read()).decode()
    ids = [line for line in body.splitlines() if line.startswith("id: ")]
    assert ids == [f"id: {int(Position.of(ledger, 1, 1))}" for ledger in (11, 12, 13, 14)]
    assert body.endswith('byebye"\n\n')


async def test_the_receiver_tells_what_came_and_when() -> None:
    def take() -> list[tuple[str, float]]:
        return receiver.take(3)

    with receiving() as receiver:
        before = time.monotonic()
        async with aiohttp.ClientSession() as http:
            for number in range(3):
                headers = {"webhook-id": f"id {number}"}
                async with http.post(receiver.url, data=b"x" * 99_999, headers=headers) as answer:
                    assert (answer.status, await answer.read()) == (200, b"ok")
        came = await asyncio.get_running_loop().run_in_executor(None, take)
    assert [id_ for id_, _ in came] == ["id 0", "id 1", "id 2"]
    assert before <= came[0][1] <= came[1][1] <= came[2][1] <= time.monotonic()

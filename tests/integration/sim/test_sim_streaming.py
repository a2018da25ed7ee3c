"""The simulated streams, byte for byte, and what may break them."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from paywatch.sim import (
    Fault,
    HorizonSettings,
    Moment,
    NetworkSettings,
    Quota,
    StreamSettings,
)
from paywatch.sim.problems import go_json
from paywatch.sim.records import operation_record
from support.sim_site import Site, open_site

HELLO = b'retry: 1000\nevent: open\ndata: "hello"\n\n'
GOODBYE = b'retry: 10\nevent: close\ndata: "byebye"\n\n'


async def read_event(response: aiohttp.ClientResponse) -> bytes:
    """The next whole event, with its empty line."""
    return await response.content.readuntil(b"\n\n")


def event_of(site: Site, op_id: int) -> bytes:
    (op,) = [op for op in site.network.ledger.history.operations if op.id == op_id]
    record = operation_record(op, site.network.url)
    return f"id: {op_id}\ndata: {go_json(record)}\n\n".encode()


async def pay(site: Site, amount: str = "1") -> int:
    """Pay the shop in a ledger of its own; gives the position."""
    (tx,) = await site.network.pay(site.alice.pay(site.shop.account_id, amount))
    return tx.id + 1


async def newest(site: Site) -> str:
    (record,) = await site.records(site.payments, order="desc", limit="1")
    return str(record["id"])


async def test_hello_records_and_goodbye_are_framed_as_horizon_does(site: Site) -> None:
    cursor = await newest(site)
    first = await pay(site)
    async with site.stream(site.payments, cursor=cursor, limit="2") as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert await read_event(response) == HELLO
        assert await read_event(response) == event_of(site, first)
        second = await pay(site)
        assert await read_event(response) == event_of(site, second)
        assert await response.content.read() == GOODBYE, "after `limit` records in total"


async def test_a_stream_says_hello_at_once_and_nothing_until_a_record_comes(site: Site) -> None:
    async with site.stream(site.payments, cursor="now") as response:
        assert await read_event(response) == HELLO
        await site.network.close_ledger()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(response.content.readany(), 0.05)
        paid = await pay(site)
        assert await read_event(response) == event_of(site, paid)


async def test_a_stream_ends_when_the_connections_time_is_up() -> None:
    stream = StreamSettings(update_s=0, connection_s=0.05)
    settings = NetworkSettings(horizon=HorizonSettings(stream=stream))
    async with open_site(settings) as site, site.stream("/payments", cursor="now") as response:
        assert await response.content.read() == HELLO + GOODBYE


async def test_a_stream_joins_transactions(site: Site) -> None:
    async with site.stream(site.payments, limit="1", join="transactions") as response:
        await read_event(response)
        event = (await read_event(response)).decode()
    assert "transaction" in json.loads(event.partition("data: ")[2])


async def test_an_error_before_the_hello_is_an_ordinary_problem(site: Site) -> None:
    nobody = site.network.wallet("nobody").account_id
    async with site.stream(f"/accounts/{nobody}/payments") as response:
        assert response.status == 404
        assert response.headers["Content-Type"] == "application/problem+json; charset=utf-8"
    async with site.stream(site.payments, limit="201") as response:
        assert response.status == 400


async def test_each_look_costs_a_token_and_the_last_one_ends_the_stream() -> None:
    quota = Quota(per_hour=1, burst=1)
    async with open_site(NetworkSettings(horizon=HorizonSettings(quota=quota))) as site:
        async with site.stream(site.payments, cursor="now") as response:
            assert await read_event(response) == HELLO
            paid = await pay(site)
            assert await read_event(response) == event_of(site, paid)
            await site.network.close_ledger()
            error = await response.content.read()
        assert error.startswith(b"event: error\ndata: problem: rate_limit_exceeded.")
        async with site.stream(site.payments, cursor="now") as response:
            assert response.status == 429
            assert "Retry-After" not in response.headers
            assert "X-RateLimit-Limit" not in response.headers


async def test_a_stream_notices_a_ledger_only_when_it_looks() -> None:
    stream = StreamSettings(update_s=0.05)
    settings = NetworkSettings(horizon=HorizonSettings(stream=stream))
    async with open_site(settings) as site, site.stream("/payments", cursor="now") as response:
        assert await read_event(response) == HELLO
        began = asyncio.get_running_loop().time()
        first, second = await pay(site), await pay(site)
        both = await read_event(response) + await read_event(response)
        assert both == event_of(site, first) + event_of(site, second)
        assert asyncio.get_running_loop().time() - began > 0.03


async def test_the_whole_network_is_streamed_too(site: Site) -> None:
    async with site.stream("/payments", cursor="now") as response:
        await read_event(response)
        paid = await pay(site)
        assert await read_event(response) == event_of(site, paid)


@asynccontextmanager
async def disturbed(site: Site, fault: Fault) -> AsyncIterator[tuple[Any, int, int]]:
    """A stream whose first event meets a fault, and the positions of two payments on it."""
    cursor = await newest(site)
    first, second = await pay(site), await pay(site)
    scripted = site.network.faults.next(fault, at=Moment.EVENT)
    async with site.stream(site.payments, cursor=cursor) as response:
        assert await read_event(response) == HELLO
        yield response, first, second
        assert scripted.consumed.is_set()


async def test_an_early_end_has_no_goodbye(site: Site) -> None:
    async with disturbed(site, Fault.END_OF_STREAM) as (response, _, _):
        assert await response.content.read() == b""


async def test_a_cut_breaks_in_the_middle_of_an_event(site: Site) -> None:
    async with disturbed(site, Fault.CUT) as (response, first, _):
        got, whole = b"", event_of(site, first)
        with contextlib.suppress(aiohttp.ClientError):
            while chunk := await response.content.readany():
                got += chunk
        assert response.content.exception() is not None, "it broke, it did not end"
        assert whole.startswith(got)
        assert 0 < len(got) < len(whole)


async def test_a_malformed_event_has_its_id_and_broken_json(site: Site) -> None:
    async with disturbed(site, Fault.MALFORMED) as (response, first, second):
        token, data, *_ = (await read_event(response)).decode().split("\n")
        assert token == f"id: {first}"
        with pytest.raises(ValueError, match="delimiter"):
            json.loads(data.removeprefix("data: "))
        assert await read_event(response) == event_of(site, second), "and the stream goes on"


async def test_an_error_event_is_plain_text_and_the_end(site: Site) -> None:
    async with disturbed(site, Fault.ERROR_EVENT) as (response, _, _):
        assert (await read_event(response)).startswith(b"event: error\ndata: problem: ")
        assert await response.content.read() == b""


async def test_a_hanging_stream_is_silent_until_the_client_goes(site: Site) -> None:
    async with disturbed(site, Fault.HANG) as (response, _, _):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(response.content.readany(), 0.05)


async def test_a_replay_sends_what_was_sent_before(site: Site) -> None:
    earlier = await pay(site)
    async with disturbed(site, Fault.REPLAY) as (response, first, _):
        tokens = [(await read_event(response)).split(b"\n")[0] for _ in range(3)]
    assert tokens[-2:] == [f"id: {earlier}".encode(), f"id: {first}".encode()]


async def test_a_delay_changes_nothing_else(site: Site) -> None:
    async with disturbed(site, Fault.DELAY) as (response, first, _):
        assert await read_event(response) == event_of(site, first)


async def test_a_client_that_goes_leaves_no_task_behind(site: Site) -> None:
    before = asyncio.all_tasks()
    async with site.stream(site.payments, cursor="now") as response:
        await read_event(response)
        serving = asyncio.all_tasks() - before
        assert serving
        response.close()
    _, left = await asyncio.wait(serving, timeout=5)
    assert not left

"""Faults of plain requests and of opening a stream, as a client meets them."""

import asyncio

import aiohttp
import pytest

from paywatch.sim import Fault, Faults, FaultSettings, Moment
from support.sim_site import Site

PAGE_AND_STREAM = [Moment.PAGE, Moment.STREAM]


@pytest.mark.parametrize("moment", PAGE_AND_STREAM)
@pytest.mark.parametrize(
    ("fault", "status", "content_type"),
    [
        (Fault.NOT_FOUND, 404, "application/problem+json"),
        (Fault.RATE_LIMITED, 429, "application/problem+json"),
        (Fault.RATE_LIMITED_BARE, 429, "application/problem+json"),
        (Fault.SERVER_ERROR, 500, "application/problem+json"),
        (Fault.UNAVAILABLE, 503, "text/plain"),
        (Fault.GATEWAY_TIMEOUT, 504, "application/octet-stream"),
        (Fault.HTML, 200, "text/html"),
    ],
)
async def test_an_error_strikes_once(
    site: Site, moment: Moment, fault: Fault, status: int, content_type: str
) -> None:
    headers = {"Accept": "text/event-stream"} if moment == Moment.STREAM else {}
    site.network.faults.next(fault, at=moment)
    url = site.network.url + site.payments

    async with site.http.get(url, headers=headers) as response:
        assert (response.status, response.content_type) == (status, content_type)
        assert ("Retry-After" in response.headers) == (fault == Fault.RATE_LIMITED)
    async with site.http.get(url, headers=headers) as response:
        assert response.status == 200

    seen = [r.fault for r in site.network.requests if r.path == site.payments]
    assert seen == [fault, None]


async def test_a_cut_page_is_shorter_than_it_said(site: Site) -> None:
    site.network.faults.next(Fault.CUT, at=Moment.PAGE)
    with pytest.raises(aiohttp.ClientError):
        await site.records(site.payments)
    assert await site.records(site.payments)


async def test_a_malformed_page_is_half_of_one(site: Site) -> None:
    site.network.faults.next(Fault.MALFORMED, at=Moment.PAGE)
    with pytest.raises(ValueError, match=r"."):
        await site.records(site.payments)


@pytest.mark.parametrize("moment", PAGE_AND_STREAM)
async def test_a_hanging_request_is_bounded_by_the_client(site: Site, moment: Moment) -> None:
    headers = {"Accept": "text/event-stream"} if moment == Moment.STREAM else {}
    site.network.faults.next(Fault.HANG, at=moment)
    limit = aiohttp.ClientTimeout(total=0.05)
    with pytest.raises(TimeoutError):
        await site.http.get(site.network.url + site.payments, headers=headers, timeout=limit)


async def test_a_replayed_page_begins_with_records_before_the_cursor(site: Site) -> None:
    await site.network.pay(site.alice.pay(site.shop.account_id, "1"))
    created, paid = await site.records(site.payments)
    site.network.faults.next(Fault.REPLAY, at=Moment.PAGE)
    again = await site.records(site.payments, cursor=created["id"])
    assert [r["id"] for r in again] == [created["id"], paid["id"]]


async def test_submissions_are_never_disturbed(site: Site) -> None:
    everything = Faults(FaultSettings.everything(1.0, seed=1))
    site.network.horizon.faults = everything
    envelope = site.alice.pay(site.shop.account_id, "1").to_xdr()
    url = site.network.url + "/transactions"
    answer = asyncio.create_task(site.http.post(url, data={"tx": envelope}))
    await site.network.wait_for_pending()
    await site.network.close_ledger()
    assert (await answer).status == 200

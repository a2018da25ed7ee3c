"""The simulated Horizon over HTTP: paths, pages, errors, headers."""

import asyncio
from typing import Any

import aiohttp
import pytest
from stellar_sdk import Asset, TextMemo
from stellar_sdk.server import Server

from paywatch.sim import HorizonSettings, NetworkSettings, Quota, keypair_of
from support.sim_site import USD, Site, open_site


async def test_the_root_tells_network_tip_and_elder(site: Site) -> None:
    status, root = await site.get("/")
    latest = site.network.ledger.latest
    assert status == 200
    assert root["network_passphrase"] == site.network.passphrase
    assert root["history_latest_ledger"] == latest.sequence == root["core_latest_ledger"]
    assert root["history_latest_ledger_closed_at"] == latest.closed_at.strftime(
        "%Y-%m-%dT%H:%M:%SZ"
    )
    assert root["history_elder_ledger"] == 1
    assert root["_links"]["self"] == {"href": site.network.url + "/"}


async def test_payments_of_an_account_come_with_their_transactions(site: Site) -> None:
    await site.network.pay(site.alice.pay(site.shop.account_id, "1.5", memo=TextMemo("order-1")))

    created, paid = await site.records(site.payments, join="transactions")

    assert (created["type"], paid["type"]) == ("create_account", "payment")
    assert paid["transaction"]["memo"] == "order-1"
    assert paid["transaction"]["hash"] == paid["transaction_hash"]
    (without,) = await site.records(site.payments, cursor=created["id"])
    assert "transaction" not in without


async def test_a_page_is_hal_and_its_links_work(site: Site) -> None:
    for _ in range(3):
        await site.network.pay(site.alice.pay(site.shop.account_id, "1"))
    async with site.http.get(site.network.url + site.payments, params={"limit": "3"}) as response:
        assert response.headers["Content-Type"] == "application/hal+json; charset=utf-8"
        page = await response.json(content_type=None)

    async with site.http.get(page["_links"]["next"]["href"]) as response:
        (last,) = (await response.json(content_type=None))["_embedded"]["records"]

    seen = [record["id"] for record in page["_embedded"]["records"]]
    assert len(seen) == 3
    assert int(last["id"]) > int(seen[-1])


async def test_all_payments_of_the_network_are_in_one_list_too(site: Site) -> None:
    await site.network.pay(site.alice.pay(site.shop.account_id, "1"))
    everything = await site.records("/payments", limit="200")
    assert [r["type"] for r in everything] == ["create_account"] * 3 + ["payment"]
    operations = await site.records("/operations", limit="200")
    assert [r["type"] for r in operations][3] == "change_trust"


async def test_a_transaction_by_hash_shows_failed_payments_and_effects(site: Site) -> None:
    (tx,) = await site.network.pay(site.alice.pay(site.shop.account_id, "999999"))
    status, record = await site.get(f"/transactions/{tx.hash}")
    assert (status, record["successful"]) == (200, False)
    (payment,) = await site.records(f"/transactions/{tx.hash}/payments")
    assert payment["transaction_successful"] is False
    assert await site.records(f"/transactions/{tx.hash}/effects") == []
    assert payment["id"] not in [r["id"] for r in await site.records(site.payments)]
    assert payment["id"] in [
        r["id"] for r in await site.records(site.payments, include_failed="true")
    ]


async def test_a_fee_bump_is_found_by_its_inner_hash_which_is_echoed(site: Site) -> None:
    inner = site.alice.pay(site.shop.account_id, "1")
    (tx,) = await site.network.pay(site.shop.fee_bump(inner))

    _, by_outer = await site.get(f"/transactions/{tx.hash}")
    _, by_inner = await site.get(f"/transactions/{inner.hash_hex()}")

    assert by_outer["hash"] == tx.hash
    assert by_inner["hash"] == by_inner["id"] == inner.hash_hex()
    assert by_inner["inner_transaction"] == by_outer["inner_transaction"]
    assert by_inner["signatures"] == by_inner["inner_transaction"]["signatures"]
    (payment,) = await site.records(f"/transactions/{inner.hash_hex()}/operations")
    assert payment["transaction_hash"] == tx.hash


async def test_operations_ledgers_and_accounts_are_found_one_by_one(site: Site) -> None:
    (tx,) = await site.network.pay(site.alice.pay(site.shop.account_id, "1"))
    _, operation = await site.get(f"/operations/{tx.id + 1}")
    assert operation["amount"] == "1.0000000"
    effects = await site.records(f"/operations/{tx.id + 1}/effects")
    assert [e["type"] for e in effects] == ["account_credited", "account_debited"]
    _, ledger = await site.get(f"/ledgers/{tx.ledger}")
    assert ledger["hash"] == site.network.ledger.latest.hash
    _, account = await site.get(f"/accounts/{site.shop.account_id}")
    assert account["last_modified_ledger"] == tx.ledger
    assert account["last_modified_time"] == ledger["closed_at"]


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/nothing", 404, "not_found"),
        (f"/accounts/{keypair_of('nobody').public_key}", 404, "not_found"),
        (f"/accounts/{keypair_of('nobody').public_key}/payments", 404, "not_found"),
        ("/accounts/GABC/payments", 400, "bad_request"),
        (f"/transactions/{'0' * 64}", 404, "not_found"),
        (f"/transactions/{'0' * 64}/payments", 404, "not_found"),
        (f"/transactions/{'A' * 64}", 400, "bad_request"),
        ("/transactions/abc", 400, "bad_request"),
        ("/operations/0", 400, "bad_request"),
        ("/operations/99999999999999", 404, "not_found"),
        ("/ledgers/999", 404, "not_found"),
        ("/payments?limit=201", 400, "bad_request"),
    ],
)
async def test_errors_are_problem_documents(site: Site, path: str, status: int, kind: str) -> None:
    async with site.http.get(site.network.url + path) as response:
        assert response.status == status
        assert response.headers["Content-Type"] == "application/problem+json; charset=utf-8"
        problem = await response.json(content_type=None)
    assert problem["type"] == f"https://stellar.org/horizon-errors/{kind}"
    assert problem["status"] == status


async def test_a_muxed_address_in_the_path_is_refused(site: Site) -> None:
    status, problem = await site.get(f"/accounts/{site.shop.muxed(7)}/payments")
    assert (status, problem["extras"]["invalid_field"]) == (400, "account_id")


async def test_an_account_with_all_its_history_forgotten_is_not_found(site: Site) -> None:
    assert len(await site.records(site.payments)) == 1
    await site.network.close_ledger()
    site.network.horizon.view.keep_from(site.network.ledger.latest.sequence)
    assert (await site.get(site.payments))[0] == 404
    assert (await site.get(f"/accounts/{site.shop.account_id}"))[0] == 200


async def test_an_account_without_payments_in_its_history_has_an_empty_list(site: Site) -> None:
    view = site.network.horizon.view
    view.keep_from(site.network.ledger.latest.sequence)  # only the shop's change_trust is left
    assert await site.records(site.payments) == []
    assert (await site.get(f"/ledgers/{view.elder - 1}"))[0] == 410


async def test_of_a_ledger_in_a_gap_nothing_is_there_until_it_is_filled(site: Site) -> None:
    (tx,) = await site.network.pay(site.alice.pay(site.shop.account_id, "1"))
    await site.network.close_ledger()
    paths = (f"/transactions/{tx.hash}", f"/ledgers/{tx.ledger}", f"/operations/{tx.id + 1}")
    view = site.network.horizon.view
    view.gaps.add(tx.ledger)
    assert [(await site.get(path))[0] for path in paths] == [404] * 3
    assert (await site.get("/"))[1]["history_latest_ledger"] == tx.ledger + 1
    assert str(tx.id + 1) not in {r["id"] for r in await site.records("/payments", limit="200")}
    view.gaps.clear()
    assert [(await site.get(path))[0] for path in paths] == [200] * 3
    assert str(tx.id + 1) in {r["id"] for r in await site.records("/payments", limit="200")}


async def test_a_second_instance_may_lag_and_keep_less(site: Site) -> None:
    await site.network.pay(site.alice.pay(site.shop.account_id, "1"))
    behind = await site.network.add_horizon(lag=1, elder=2)

    async with site.http.get(behind.url + "/") as response:
        root = await response.json(content_type=None)
    async with site.http.get(behind.url + site.payments) as response:
        page = await response.json(content_type=None)

    latest = site.network.ledger.latest.sequence
    assert (root["history_latest_ledger"], root["history_elder_ledger"]) == (latest - 1, 2)
    assert root["core_latest_ledger"] == latest
    assert [r["type"] for r in page["_embedded"]["records"]] == ["create_account"]


async def test_the_links_carry_the_host_that_the_server_believes_it_has() -> None:
    settings = NetworkSettings(horizon=HorizonSettings(base_url="https://elsewhere.example"))
    async with open_site(settings) as site:
        (record,) = await site.records("/payments", limit="1")
        assert record["_links"]["self"]["href"].startswith("https://elsewhere.example/operations/")


async def test_rate_limit_headers_count_down_to_a_429() -> None:
    quota = Quota(per_hour=3600, burst=2)
    async with open_site(NetworkSettings(horizon=HorizonSettings(quota=quota))) as site:
        remaining = []
        for _ in range(3):
            async with site.http.get(site.network.url + "/") as response:
                assert response.status == 200
                assert response.headers["X-RateLimit-Limit"] == "3"
                remaining.append(response.headers["X-RateLimit-Remaining"])
        async with site.http.get(site.network.url + "/") as response:
            assert response.status == 429
            assert response.headers["Retry-After"] == "1"
            assert (await response.json(content_type=None))["title"] == "Rate Limit Exceeded"
    assert remaining[0] == "2"


async def test_an_outage_is_an_instance_that_stops_and_comes_back_at_its_address(
    site: Site,
) -> None:
    url = site.network.url
    await site.network.horizon.stop()
    with pytest.raises(aiohttp.ClientConnectorError):
        await site.get("/")
    await site.network.horizon.start()
    assert site.network.url == url
    assert (await site.get("/"))[0] == 200


async def test_the_sdk_reads_it(site: Site) -> None:
    await site.network.pay(site.alice.path_receive(site.shop.account_id, "1", USD, send_max="9"))

    def read() -> tuple[dict[str, Any], dict[str, Any], int]:
        with Server(site.network.url) as server:
            call = server.payments().for_account(site.shop.account_id).join("transactions")
            page = call.limit(2).order(desc=True).call()
            shop = server.accounts().account_id(site.shop.account_id).call()
            return page, shop, server.load_account(site.alice.account_id).sequence

    page, shop, sequence = await asyncio.to_thread(read)

    paid, _ = page["_embedded"]["records"]
    assert (paid["amount"], paid["source_amount"]) == ("1.0000000", "8.0000000")
    assert sequence == site.network.ledger.next_sequence(site.alice.account_id) - 1
    usd, native = shop["balances"]
    assert Asset(usd["asset_code"], usd["asset_issuer"]) == USD
    assert native["asset_type"] == "native"


async def test_requests_can_be_waited_for(site: Site) -> None:
    await site.get(site.payments, limit="7")
    (seen,) = await site.network.requests.wait_for(lambda r: r.params.get("limit") == "7")
    assert (seen.method, seen.path, seen.stream, seen.status) == ("GET", site.payments, False, 200)

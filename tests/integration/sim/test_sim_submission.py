import asyncio
from typing import Any

import pytest
from stellar_sdk import FeeBumpTransactionEnvelope, TransactionEnvelope
from stellar_sdk.server import Server

from paywatch.sim import HorizonSettings, NetworkSettings, RemoteNetwork, RemoteRefusal
from support.sim_site import Site, open_site

Answer = tuple[int, dict[str, Any]]


async def submit(
    site: Site, envelope: TransactionEnvelope | FeeBumpTransactionEnvelope | str
) -> Answer:
    text = envelope if isinstance(envelope, str) else envelope.to_xdr()
    async with site.http.post(site.network.url + "/transactions", data={"tx": text}) as response:
        return response.status, await response.json(content_type=None)


async def submit_and_close(
    site: Site, envelope: TransactionEnvelope | FeeBumpTransactionEnvelope
) -> Answer:
    """Submit, and close a ledger once the transaction waits for it."""
    answer = asyncio.create_task(submit(site, envelope))
    await site.network.wait_for_pending()
    await site.network.close_ledger()
    return await answer


async def test_a_submission_is_answered_when_its_ledger_has_closed(site: Site) -> None:
    envelope = site.alice.pay(site.shop.account_id, "1")
    status, answer = await submit_and_close(site, envelope)
    assert status == 200
    assert answer["hash"] == envelope.hash_hex()
    assert answer["ledger"] == site.network.ledger.latest.sequence


async def test_a_fee_bump_is_submitted_too(site: Site) -> None:
    bump = site.shop.fee_bump(site.alice.pay(site.shop.account_id, "1"))
    status, answer = await submit_and_close(site, bump)
    assert (status, answer["hash"]) == (200, bump.hash_hex())


async def test_a_failed_one_is_answered_with_its_codes(site: Site) -> None:
    envelope = site.alice.pay(site.shop.account_id, "999999")
    status, problem = await submit_and_close(site, envelope)
    assert status == 400
    assert problem["type"].endswith("/transaction_failed")
    assert problem["extras"]["result_codes"] == {
        "transaction": "tx_failed", "operations": ["op_underfunded"]
    }  # fmt: skip
    assert problem["extras"]["envelope_xdr"] == envelope.to_xdr()
    assert site.network.ledger.history.tx(envelope.hash_hex()) is not None


async def test_a_refused_one_is_answered_at_once(site: Site) -> None:
    envelope = site.alice.pay(site.shop.account_id, "1")
    envelope.signatures = []
    status, problem = await submit(site, envelope)
    assert (status, problem["extras"]["result_codes"]) == (400, {"transaction": "tx_bad_auth"})
    assert site.network.ledger.pending() == []


async def test_garbage_is_a_malformed_transaction(site: Site) -> None:
    status, problem = await submit(site, "garbage")
    assert (status, problem["title"]) == (400, "Transaction Malformed")
    assert problem["extras"] == {"envelope_xdr": "garbage"}


async def test_the_same_hash_submitted_twice_is_one_transaction(site: Site) -> None:
    envelope = site.alice.pay(site.shop.account_id, "1")
    first = asyncio.create_task(submit(site, envelope))
    second = asyncio.create_task(submit(site, envelope))
    await site.network.requests.wait_for(lambda r: r.path == "/transactions", count=2)
    await site.network.wait_for_pending()
    await site.network.close_ledger()
    answers = [await first, await second, await submit(site, envelope)]
    assert [status for status, _ in answers] == [200] * 3
    assert {answer["hash"] for _, answer in answers} == {envelope.hash_hex()}
    assert len(await site.records(site.payments)) == 2, "the creation and one payment"


async def test_a_ledger_that_does_not_come_is_a_timeout_with_the_hash() -> None:
    async with open_site(NetworkSettings(horizon=HorizonSettings(submit_s=0.01))) as site:
        envelope = site.alice.pay(site.shop.account_id, "1")
        status, problem = await submit(site, envelope)
    assert (status, problem["extras"]["hash"]) == (504, envelope.hash_hex())


async def test_the_sdk_submits(site: Site) -> None:
    envelope = site.alice.pay(site.shop.account_id, "1")

    def send() -> dict[str, Any]:
        with Server(site.network.url) as server:
            return server.submit_transaction(envelope)  # asks for the destination's data first

    answer = asyncio.create_task(asyncio.to_thread(send))
    await site.network.wait_for_pending()
    await site.network.close_ledger()
    assert (await answer)["successful"] is True


async def test_another_process_needs_only_http() -> None:
    settings = NetworkSettings(close_every_s=0.01)
    async with open_site(settings) as site, RemoteNetwork(site.network.url) as remote:
        carol = await remote.fund("carol")
        again = await remote.fund("carol")
        shop = site.shop.account_id

        first = await remote.submit(carol.pay(shop, "1"))
        second = await remote.submit(again.pay(shop, "2"))
        with pytest.raises(RemoteRefusal, match="op_underfunded"):
            await remote.submit(carol.pay(shop, "99999"))

        assert first["source_account"] == second["source_account"] == carol.account_id
        assert site.network.ledger.state.account(carol.account_id) is not None
        amounts = [r.get("amount") for r in await site.records(site.payments, limit="200")]
        assert amounts[-2:] == ["1.0000000", "2.0000000"]


async def test_the_friendbot_refuses_an_account_that_exists_and_an_address_that_is_none(
    site: Site,
) -> None:
    answer = asyncio.create_task(site.get("/friendbot", addr=site.alice.account_id))
    await site.network.wait_for_pending()
    await site.network.close_ledger()
    status, problem = await answer
    assert (status, problem["extras"]["result_codes"]["operations"]) == (400, ["op_already_exists"])
    assert (await site.get("/friendbot", addr="GABC"))[0] == 400

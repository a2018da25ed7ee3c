import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import aiohttp
import pytest
from standardwebhooks import Webhook

from paywatch.sim import Answer, Merchant, ReceivedWebhook

# The published test vector of Standard Webhooks.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'
HEADERS = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
NOW = 1614265330.0


@pytest.fixture
async def merchant() -> AsyncIterator[Merchant]:
    async with Merchant() as merchant:
        yield merchant


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as http:
        yield http


def received(body: bytes = BODY, **changes: str) -> ReceivedWebhook:
    headers = HEADERS | {name.replace("_", "-"): value for name, value in changes.items()}
    return ReceivedWebhook("/hooks", headers, body)


def test_the_published_vector_verifies() -> None:
    assert received().verified_by(SECRET, NOW)


def test_one_good_signature_among_several_is_enough() -> None:
    both = "v1,AAAA v1a,BBBB " + HEADERS["webhook-signature"]
    assert received(webhook_signature=both).verified_by(SECRET, NOW)


@pytest.mark.parametrize(
    "webhook",
    [
        received(body=BODY + b" "),
        received(webhook_id="msg_other"),
        received(webhook_timestamp="1614265331"),
        received(webhook_timestamp="soon"),
        received(webhook_signature=""),
        received(webhook_signature=HEADERS["webhook-signature"].removeprefix("v1,")),
        received(webhook_signature="v2," + HEADERS["webhook-signature"].removeprefix("v1,")),
    ],
)
def test_anything_else_does_not(webhook: ReceivedWebhook) -> None:
    assert not webhook.verified_by(SECRET, NOW)


def test_an_old_signature_is_refused_by_a_clock() -> None:
    assert not received().verified_by(SECRET, NOW + 301)
    assert received().verified_by(SECRET), "without a clock, age is not judged"


def test_another_secret_does_not_verify() -> None:
    assert not received().verified_by("whsec_" + "A" * 32, NOW)


def test_what_the_official_library_signs_verifies() -> None:
    at = datetime.fromtimestamp(NOW, UTC)
    signature = Webhook(SECRET).sign("msg_1", at, '{"a": 1}')
    signed = received(b'{"a": 1}', webhook_id="msg_1", webhook_signature=signature)
    assert signed.verified_by(SECRET, NOW)


async def test_requests_are_recorded_as_they_came(
    merchant: Merchant, http: aiohttp.ClientSession
) -> None:
    body = b'{"type":"checkout.session.paid"}'
    async with http.post(merchant.url + "/hooks", data=body, headers=HEADERS) as response:
        assert response.status == 200

    (webhook,) = await merchant.wait_for(1)

    assert (webhook.path, webhook.body) == ("/hooks", body)
    assert (webhook.id, webhook.type) == (HEADERS["webhook-id"], "checkout.session.paid")


async def test_answers_are_scripted_and_then_it_is_200_again(
    merchant: Merchant, http: aiohttp.ClientSession
) -> None:
    merchant.answer(Answer(410), path="/gone")
    merchant.answer(
        Answer(503, {"Retry-After": "7"}), Answer(302, {"Location": "/"}), Answer(padding=200_000)
    )
    statuses = []
    for path in ("/", "/gone", "/", "/", "/"):
        async with http.post(merchant.url + path, allow_redirects=False) as response:
            statuses.append((response.status, len(await response.read())))
    assert statuses == [(503, 0), (410, 0), (302, 0), (200, 200_000), (200, 0)]


async def test_a_reset_and_a_hang_are_no_answer(
    merchant: Merchant, http: aiohttp.ClientSession
) -> None:
    merchant.answer(Answer(reset=True), Answer(hang=True))
    with pytest.raises(aiohttp.ClientError):
        await http.post(merchant.url)
    with pytest.raises(TimeoutError):
        await http.post(merchant.url, timeout=aiohttp.ClientTimeout(total=0.05))
    assert len(merchant.received) == 2


async def test_waiting_for_webhooks_that_are_to_come(
    merchant: Merchant, http: aiohttp.ClientSession
) -> None:
    waiting = asyncio.create_task(merchant.wait_for(2, lambda w: w.path == "/a"))
    for path in ("/a", "/b", "/a"):
        await http.post(merchant.url + path)
    assert [w.path for w in await asyncio.wait_for(waiting, 5)] == ["/a", "/a"]

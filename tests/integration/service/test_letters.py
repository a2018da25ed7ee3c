"""Dead letters on a real database: seen, sent again under the same name, and never by mistake."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from paywatch.domain.delivery import Answer
from paywatch.errors import InvalidInput, NotFound
from paywatch.service.dispatch import Dispatcher
from paywatch.service.letters import Letters
from paywatch.store.invariants import find_violations
from paywatch.telemetry import Metrics
from paywatch.webhooks.sealing import Vault
from paywatch.webhooks.signing import sign
from support import NOW
from support.outbox import attempts, deliveries, enqueue, merchant

VAULT = Vault(b"k" * 32)


@dataclass
class Server:
    """A merchant's server: what came, and what it answers."""

    status: int = 500
    ids: list[str] = field(default_factory=list)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        assert (url, body) == ("https://shop.example/hook", b"{}")
        self.ids.append(headers["webhook-id"])
        return Answer(status=self.status)


@dataclass
class Desk:
    """A dispatcher and an operator, on one clock."""

    engine: AsyncEngine
    server: Server = field(default_factory=Server)

    def __post_init__(self) -> None:
        self.now = NOW
        metrics, clock = Metrics(), lambda: self.now
        self.dispatcher = Dispatcher(
            self.engine, self.server, VAULT, sign, metrics, clock, Random(1)
        )
        self.letters = Letters(self.engine, clock)

    async def dispatch(self, times: int = 1) -> None:
        for _ in range(times):
            await self.dispatcher.run_once()
            self.now += timedelta(days=2)


async def test_a_dead_letter_is_sent_again_under_its_id_by_the_next_attempt(
    engine: AsyncEngine,
) -> None:
    desk = Desk(engine)
    shop = await merchant(engine, VAULT, "https://shop.example/hook", NOW)
    [event_id] = await enqueue(engine, shop, NOW)
    await desk.dispatch(10)
    [dead] = await desk.letters.read_list("dead", 10)
    assert (dead.event_id, dead.attempts_made) == (event_id, 10)
    resent = await desk.letters.resend(event_id)
    assert (resent.state, resent.attempts_made, resent.dead_reason) == ("pending", 10, None)
    await desk.dispatch()
    [dead] = await desk.letters.read_list("dead", 10)
    assert dead.dead_reason == "attempt 11 failed: status 500"
    desk.server.status = 200
    await desk.letters.resend(event_id)
    await desk.dispatch()
    [delivery] = await deliveries(engine)
    assert (delivery["state"], delivery["attempts_made"]) == ("delivered", 12)
    assert [attempt["number"] for attempt in await attempts(engine)] == list(range(1, 13))
    assert set(desk.server.ids) == {str(event_id)}


async def test_what_is_no_dead_letter_is_not_sent_again(engine: AsyncEngine) -> None:
    """A merchant must not be told twice for an operator's slip."""
    desk = Desk(engine, Server(status=200))
    shop = await merchant(engine, VAULT, "https://shop.example/hook", NOW)
    [event_id] = await enqueue(engine, shop, NOW)
    with pytest.raises(InvalidInput, match="event_id: is pending: only dead letters"):
        await desk.letters.resend(event_id)
    await desk.dispatch()
    with pytest.raises(InvalidInput, match="event_id: is delivered: only dead letters"):
        await desk.letters.resend(event_id)
    with pytest.raises(NotFound):
        await desk.letters.resend(uuid4())
    await desk.dispatch()
    assert len(desk.server.ids) == 1


async def test_after_a_410_the_endpoint_is_enabled_first(engine: AsyncEngine) -> None:
    desk = Desk(engine, Server(status=410))
    shop = await merchant(engine, VAULT, "https://shop.example/hook", NOW)
    [event_id] = await enqueue(engine, shop, NOW)
    await desk.dispatch()
    with pytest.raises(InvalidInput, match=f"410 Gone.*endpoint enable {shop.merchant_id}"):
        await desk.letters.resend(event_id)
    enabled = await desk.letters.enable_endpoint(shop.merchant_id)
    assert enabled.disabled_reason == "the endpoint answered 410 Gone"
    assert (await desk.letters.enable_endpoint(shop.merchant_id)).disabled_reason is None
    desk.server.status = 200
    await desk.letters.resend(event_id)
    await desk.dispatch()
    assert [one["state"] for one in await deliveries(engine)] == ["delivered"]
    with pytest.raises(NotFound):
        await desk.letters.enable_endpoint(uuid4())


async def test_what_happened_while_the_endpoint_was_disabled_can_be_sent_once_it_is_enabled(
    engine: AsyncEngine,
) -> None:
    """It had no delivery at all: the merchant was never told, and the invariants alarmed for it."""
    desk = Desk(engine, Server(status=410))
    shop = await merchant(engine, VAULT, "https://shop.example/hook", NOW)
    [event_id] = await enqueue(engine, shop, NOW)
    await desk.dispatch()
    [meanwhile] = await enqueue(engine, shop, desk.now)
    letters = await desk.letters.read_list("dead", 10)
    assert {letter.event_id for letter in letters} == {event_id, meanwhile}
    await desk.letters.enable_endpoint(shop.merchant_id)
    desk.server.status = 200
    await desk.letters.resend(meanwhile)
    await desk.dispatch()
    assert desk.server.ids[-1] == str(meanwhile)
    async with engine.connect() as conn:
        found = await find_violations(conn, desk.now)
    assert [v for v in found if v.invariant == "an_event_is_on_its_way_or_ended"] == []

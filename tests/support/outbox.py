"""Merchants with endpoints, events to tell them, and what the outbox holds afterwards."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from paywatch.domain.events import Event, EventType, event_id
from paywatch.domain.ledger import Position
from paywatch.store import cursors, events, merchants
from paywatch.store.cursors import Cursor, live_stream
from paywatch.store.writes import send
from paywatch.webhooks.sealing import Vault
from paywatch.webhooks.signing import generate_secret
from support import address


@dataclass(frozen=True)
class Told:
    """A merchant that is told of events at `url`."""

    merchant_id: UUID
    account: str
    endpoint_id: UUID
    url: str
    secret: str


async def merchant(engine: AsyncEngine, vault: Vault, url: str, now: datetime) -> Told:
    merchant_id = uuid4()
    told = Told(merchant_id, address(str(merchant_id)), uuid4(), url, generate_secret())
    watched = merchants.WatchedAccount(told.account, merchant_id, Position(0))
    sealed = vault.seal(told.secret, told.endpoint_id)
    async with engine.begin() as conn:
        await merchants.insert_merchant(conn, told.merchant_id, "shop", now)
        await merchants.insert_account(conn, watched, now)
        cursor = Cursor(live_stream(told.account), told.account, Position(0))
        await cursors.open_stream(conn, cursor, now)
        endpoint = merchants.Endpoint(told.endpoint_id, url, sealed)
        await merchants.insert_endpoint(conn, told.merchant_id, endpoint, now)
    return told


async def enqueue(
    engine: AsyncEngine, told: Told, now: datetime, count: int = 1, payload: bytes = b"{}"
) -> list[UUID]:
    """Tell the merchant of `count` paid sessions, due now; the ids of the events."""
    new = []
    for _ in range(count):
        session_id = uuid4()
        type_ = EventType.SESSION_PAID
        id_ = event_id(type_, session_id)
        new.append(Event(id_, type_, session_id, told.account, now, payload))
    async with engine.begin() as conn:
        await send(conn, events.enqueue(new, now))
    return [event.id for event in new]


async def rows(engine: AsyncEngine, sql: str, **values: object) -> list[dict[str, Any]]:
    async with engine.connect() as conn:
        return [dict(row._mapping) for row in await conn.execute(text(sql), values)]


async def deliveries(engine: AsyncEngine) -> list[dict[str, Any]]:
    return await rows(engine, "SELECT * FROM deliveries ORDER BY due_at, event_id")


async def attempts(engine: AsyncEngine) -> list[dict[str, Any]]:
    return await rows(engine, "SELECT * FROM attempts ORDER BY event_id, number")

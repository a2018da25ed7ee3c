"""What happens in a demo: sessions opened, paid, told of, and looked at."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Final

from paywatch.cli.demo.scene import Scene
from paywatch.cli.demo.shop import MORE_WAYS, THREE_WAYS, Town, Way
from paywatch.cli.output import say, show_table
from paywatch.domain.checkout import CheckoutSession, SessionStatus
from paywatch.domain.events import EventType
from paywatch.domain.ledger import format_stroops
from paywatch.service.waiting import wait_for
from paywatch.sim.history import AppliedTx
from paywatch.sim.merchant import ReceivedWebhook

PAUSE_S: Final = 2.0  # between two customers

OpenTown = Callable[[Scene], AbstractAsyncContextManager[Town]]


@dataclass(frozen=True, slots=True)
class Sale:
    """One session, how it was paid, and what the merchant was told."""

    way: Way
    session: CheckoutSession
    txs: list[AppliedTx]
    webhooks: list[ReceivedWebhook]


async def pay_three(scene: Scene, open_town: OpenTown, time_limit_s: float) -> bool:
    """Have three sessions paid in three ways, and check what the merchant was told.

    Returns:
        Whether each was paid, and told of exactly once with a signature that verifies.
    """
    sales: list[Sale] = []
    secret = ""
    try:
        async with asyncio.timeout(time_limit_s), open_town(scene) as town:
            secret = town.merchant.webhook_secret or ""
            async with asyncio.TaskGroup() as customers:
                for way in THREE_WAYS:
                    customers.create_task(_sell(town, way, sales))
    except TimeoutError:
        say(f"Not everything had happened after {time_limit_s:g} s.")
    # The daemon has stopped: what is told twice by now stays told twice.
    sales = [_with_webhooks(scene, sale) for sale in sales]
    problems = [problem for sale in sales for problem in await _problems(scene, sale, secret)]
    missing = {way.name for way in THREE_WAYS} - {sale.way.name for sale in sales}
    problems += [f"{name}: nobody paid" for name in sorted(missing)]
    _show_sales(sales, secret)
    say(
        *(problems or ["Three sessions were paid, each was told of once, each signature is right."])
    )
    return not problems


async def _sell(town: Town, way: Way, sales: list[Sale]) -> None:
    session = await town.open_session(way)
    txs = await town.pay(way, session)
    sales.append(Sale(way, session, txs, []))
    await town.scene.merchant.wait_for(1, lambda webhook: _is_about(webhook, session))


def _with_webhooks(scene: Scene, sale: Sale) -> Sale:
    told = [webhook for webhook in scene.merchant.received if _is_about(webhook, sale.session)]
    return Sale(sale.way, sale.session, sale.txs, told)


async def _problems(scene: Scene, sale: Sale, secret: str) -> list[str]:
    view = await scene.house.checkout.read_session(sale.session.id)
    found = []
    if view.session.status is not SessionStatus.PAID:
        found.append(f"{sale.way.name}: the session is {view.session.status}, not paid")
    paid_by = {payment.tx_hash.hex() for payment in view.payments}
    if paid_by != {tx.hash for tx in sale.txs}:
        found.append(f"{sale.way.name}: the payments are {sorted(paid_by)}")
    if len(sale.webhooks) != 1:
        found.append(f"{sale.way.name}: the merchant was told {len(sale.webhooks)} times")
    if not all(webhook.verified_by(secret, time.time()) for webhook in sale.webhooks):
        found.append(f"{sale.way.name}: the webhook's signature is wrong")
    return found


def _show_sales(sales: list[Sale], secret: str) -> None:
    columns = ("session", "asked", "how paid", "tx hash", "webhook id", "signature")
    rows = [
        (
            sale.session.id,
            f"{_short(sale.session.amount)} {sale.session.asset.code}",
            sale.way.name,
            sale.txs[0].hash,
            ", ".join(webhook.id for webhook in sale.webhooks),
            "verified"
            if sale.webhooks and all(w.verified_by(secret) for w in sale.webhooks)
            else "NOT VERIFIED",
        )
        for sale in sorted(sales, key=lambda sale: sale.txs[0].hash)
    ]
    show_table("three sessions", columns, rows)


def _short(stroops: int) -> str:
    return format_stroops(stroops).rstrip("0").rstrip(".")


async def keep_paying(town: Town, stop: asyncio.Event) -> None:
    """Let customers pay in one way after the other, and tell what the merchant hears."""
    hearing = asyncio.create_task(_tell_webhooks(town))
    try:
        for way in cycle(THREE_WAYS + MORE_WAYS):
            session = await town.open_session(way)
            for tx in await town.pay(way, session):
                say(f"paid      {session.id}  {way.name}: tx {tx.hash}")
            await wait_for(stop, PAUSE_S)
            if stop.is_set():
                return
    finally:
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)


async def _tell_webhooks(town: Town) -> None:
    secret = town.merchant.webhook_secret or ""
    heard: Counter[str] = Counter()
    told: set[int] = set()  # identities: two deliveries of one event may be equal
    while True:
        new = await town.scene.merchant.received.wait_for(lambda webhook: id(webhook) not in told)
        for webhook in new:
            told.add(id(webhook))
            heard[webhook.id] += 1
            signature = "verified" if webhook.verified_by(secret, time.time()) else "NOT VERIFIED"
            again = f", time {heard[webhook.id]}" if heard[webhook.id] > 1 else ""
            about = _told(webhook)
            subject = about.get("session_id") or f"credit {about.get('credit')}"
            say(f"told      {subject}  {webhook.type} {webhook.id}, signature {signature}{again}")


def _is_about(webhook: ReceivedWebhook, session: CheckoutSession) -> bool:
    return webhook.type == EventType.SESSION_PAID and _told(webhook).get("session_id") == str(
        session.id
    )


def _told(webhook: ReceivedWebhook) -> dict[str, Any]:
    payload = webhook.payload()
    told = payload.get("data") if isinstance(payload, dict) else None
    return told if isinstance(told, dict) else {}

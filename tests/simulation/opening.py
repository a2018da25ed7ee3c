"""Everybody in place for one run: the town, the shops, the merchants' desk, the daemons."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Final

import psycopg

from paywatch import config
from paywatch.sim import Merchant
from paywatch.store.engine import create_engine
from paywatch.wiring import House, furnish
from paywatch.wiring.outside import Outside
from simulation.book import Book, Diary
from simulation.checks import Checks
from simulation.instance import Clock, Instance
from simulation.loop import SimulatedLoop
from simulation.plan import Plan
from simulation.postgres import Gate
from simulation.process import Process, current
from simulation.rest import Rest
from simulation.shops import Shops
from simulation.town import Town, open_town
from simulation.traffic import Customers
from simulation.troubles import DAEMON, DatabaseTroubles, Supervisor
from simulation.wire import Wire
from simulation.words import Words
from simulation.world import REST_S, World

KEY: Final = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
DESK: Final = "desk"


@dataclass(frozen=True)
class Kernel:
    """What a run stands on.

    Attributes:
        url: of an empty, migrated database.
        conn: to the same, for the checks: autocommit, and not through the gate.
    """

    loop: SimulatedLoop
    gate: Gate
    wire: Wire
    diary: Diary
    url: str
    conn: psycopg.Connection[Any]


@asynccontextmanager
async def open_world(plan: Plan, kernel: Kernel) -> AsyncIterator[World]:
    """Put everybody in place; nothing has happened yet, and no daemon runs."""
    diary, seed = kernel.diary, plan.seed
    book, clock, desk = Book(), Clock(kernel.loop), Clock(kernel.loop)
    async with AsyncExitStack() as stack:
        town = await stack.enter_async_context(open_town(plan, book, diary, clock))
        merchant = await stack.enter_async_context(Merchant())
        now = None if plan.troubles.jump else clock
        rng = Random(f"{seed}/answers")
        written = partial(_read_event, kernel.conn)
        shops = Shops(merchant, book, diary, plan.answers, rng, written, now)
        settings = _settings(plan, town, kernel.url)
        house = await stack.enter_async_context(_open_desk(settings, desk, f"{seed}/desk"))
        customers = Customers(town, book, Random(f"{seed}/customers"))
        rng = Random(f"{seed}/words")
        words = Words(house, town, shops, customers, book, diary, rng, plan.words)
        checks = Checks(kernel.conn, town.network.ledger, book, diary, clock)
        troubles = DatabaseTroubles(plan, diary)
        supervisor = Supervisor(plan, town, troubles, diary)
        supervisor.instances += _instances(plan, kernel, settings, supervisor)
        stack.push_async_callback(_end, supervisor)
        troubles.is_exempt = lambda name: name == DESK and words.is_registering
        kernel.gate.trouble = troubles.draw
        kernel.gate.on_commit = lambda _: checks.after_commit()
        kernel.gate.on_deadlock = lambda what: diary.alarm(f"a deadlock: {what}")
        yield World(
            plan=plan,
            loop=kernel.loop,
            diary=diary,
            book=book,
            clock=clock,
            desk=desk,
            town=town,
            shops=shops,
            words=words,
            customers=customers,
            checks=checks,
            rest=Rest(kernel.conn, book, shops, checks, plan.reads_in_order),
            troubles=troubles,
            supervisor=supervisor,
        )


def _read_event(conn: psycopg.Connection[Any], id_: str) -> bytes | None:
    row = conn.execute("SELECT payload FROM events WHERE id = %s", [id_]).fetchone()
    return None if row is None else bytes(row[0])


def _instances(
    plan: Plan, kernel: Kernel, settings: dict[str, str], supervisor: Supervisor
) -> list[Instance]:
    return [
        Instance(
            f"{DAEMON}{number}",
            settings,
            f"{plan.seed}/{number}",
            gate=kernel.gate,
            wire=kernel.wire,
            trace=kernel.diary.trace,
            on_end=supervisor.ended,
        )
        for number in range(plan.instances)
    ]


async def _end(supervisor: Supervisor) -> None:
    """Stop every daemon as an operator would."""
    supervisor.is_over = True
    async with asyncio.timeout(REST_S):
        for instance in supervisor.instances:
            if instance.is_running:
                await instance.stop()


@asynccontextmanager
async def _open_desk(settings: dict[str, str], clock: Clock, seed: str) -> AsyncIterator[House]:
    """A process for the merchants' commands."""
    rng = Random(seed)
    token = current.set(Process(DESK))
    loaded = config.load(settings)
    engine = create_engine(settings["PAYWATCH_DATABASE_URL"])
    outside = Outside(clock, asyncio.get_running_loop().time, rng, rng.randbytes)
    try:
        async with furnish(loaded, engine, outside) as house:
            yield house
    finally:
        await engine.dispose()
        current.reset(token)


def _settings(plan: Plan, town: Town, url: str) -> dict[str, str]:
    return {
        "PAYWATCH_DATABASE_URL": url,
        "PAYWATCH_SECRET_KEY": KEY,
        "PAYWATCH_HORIZON_URL": town.urls,
        "PAYWATCH_NETWORK_PASSPHRASE": town.network.passphrase,
        "PAYWATCH_HORIZON_HOURLY_REQUESTS": "100000",
        "PAYWATCH_ALLOW_PRIVATE_WEBHOOKS": "true",
        "PAYWATCH_LISTEN_MODE": plan.listen_mode,
        "PAYWATCH_RECOVER_INTERVAL": str(plan.recover_interval_s),
        "PAYWATCH_PROCESSING_TIMEOUT": str(plan.processing_s),
        "PAYWATCH_AUDIT_INTERVAL": str(plan.audit_interval_s),
        "HOME": "/nonexistent",
    }

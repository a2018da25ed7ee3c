"""Two daemons on one database, customers who go on paying, and what befalls the leader.

How long a takeover takes is measured at the cursor: from the blow to the first batch that the other
one has committed.
"""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from random import Random
from typing import Any, Final

import psycopg
from stellar_sdk import IdMemo

from paywatch.sim.wallet import NATIVE
from support.commands import answer
from support.program import Program, running
from support.proxy import Proxy, database_proxy
from support.site import Site, open_site

SESSIONS: Final = 10_000  # more than are paid in any trial; each is over one lumen
LEDGER_S: Final = 0.2
LOOK_S: Final = 0.005

_OPEN_SESSIONS: Final = """
INSERT INTO checkout_sessions (id, merchant_id, account, memo_type, memo, muxed_id, asset, amount,
       expires_at, created_at, updated_at, opened_position, reference, least_amount, accept_until,
       text_for_id)
SELECT gen_random_uuid(), merchant_id, account, 'id', int8send(n), n, 'native', 10000000,
       now() + interval '1 day', now(), now(), start_position, 'order-' || n, 10000000,
       now() + interval '1 day', true
  FROM accounts, generate_series(1, %s::bigint) n"""

_STAND: Final = "SELECT epoch, position, (SELECT count(*) FROM credits) FROM cursors"

_TOLD: Final = """
SELECT (SELECT count(*) FROM checkout_sessions WHERE status = 'paid'),
       (SELECT count(*) FROM payments), (SELECT count(*) FROM credits),
       (SELECT count(*) FROM events), (SELECT count(*) FROM deliveries WHERE state = 'delivered')"""


class Blow(StrEnum):
    """What befalls a leader."""

    KILL = "killed"
    FREEZE = "frozen"
    CUT = "cut off from the database"


@dataclass(frozen=True)
class Daemon:
    """One of the two, and its way to the database."""

    program: Program
    proxy: Proxy

    async def says(self, event: str, times: int) -> None:
        """Wait until it has logged an event so many times."""
        await self.program.wait_for(lambda line: line.get("event") == event, count=times)

    def said(self, event: str) -> int:
        return sum(line.get("event") == event for line in self.program.log)


@dataclass
class Rivals:
    """The trial.

    Attributes:
        paid: how many sessions the customers have paid, all with numbers from 1 on.
    """

    site: Site
    stack: AsyncExitStack
    rng: Random
    conn: psycopg.AsyncConnection[Any]
    paid: int = 0
    _enough: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> None:
        """Start both at the same moment: one of them leads."""
        both = [await self._daemon(), await self._daemon()]
        first, _ = await asyncio.wait(
            [asyncio.create_task(self._leads(one)) for one in both],
            return_when=asyncio.FIRST_COMPLETED,
        )
        self.leader = first.pop().result()
        [self.standby] = [one for one in both if one is not self.leader]
        await self.standby.says("standing_by", 1)
        self._paying = asyncio.create_task(self._pay())
        self.stack.push_async_callback(asyncio.wait, [self._paying])
        self.stack.callback(self._paying.cancel)

    async def _leads(self, daemon: Daemon) -> Daemon:
        await daemon.says("leading", 1)
        return daemon

    async def _daemon(self) -> Daemon:
        url = self.site.settings["PAYWATCH_DATABASE_URL"]
        proxy, through = await self.stack.enter_async_context(database_proxy(url))
        site = self.site.having(database_url=through)
        return Daemon(await self.stack.enter_async_context(running(site.environ, "run")), proxy)

    async def _pay(self) -> None:
        """Pay one session in each ledger until it is enough."""
        for number in count(1):
            if self._enough.is_set():
                return
            shop, customer = self.site.shop.account_id, self.site.customer
            await self.site.pay(customer.pay(shop, "1", NATIVE, IdMemo(number)))
            self.paid = number

    async def strike(self, blow: Blow) -> float:
        """Strike the leader at a random moment; gives the seconds to the other's first batch."""
        epoch, _ = await self._stand()
        await self._commits(epoch)
        await asyncio.sleep(self.rng.uniform(0, 2 * LEDGER_S))
        struck, self.leader, self.standby = self.leader, self.standby, self.leader
        stood_by = struck.said("standing_by")
        began = time.monotonic()
        match blow:
            case Blow.KILL:
                struck.program.process.kill()
            case Blow.FREEZE:
                struck.program.process.send_signal(signal.SIGSTOP)
            case Blow.CUT:
                struck.proxy.stall()
        await self._commits(epoch + 1)
        took_s = time.monotonic() - began
        match blow:
            case Blow.KILL:
                await struck.program.ended()
                self.standby, stood_by = await self._daemon(), 0
            case Blow.FREEZE:
                struck.program.process.send_signal(signal.SIGCONT)
            case Blow.CUT:
                await struck.proxy.flow()
        await self.standby.says("standing_by", stood_by + 1)
        return took_s

    async def _stand(self) -> tuple[int, tuple[int, int]]:
        """The epoch, and how far its stream is: only pages move the position."""
        [(epoch, *far)] = await (await self.conn.execute(_STAND)).fetchall()
        return epoch, (far[0], far[1])

    async def _commits(self, epoch: int) -> None:
        """Wait until whoever has that epoch, or a later one, has committed a batch."""
        before: tuple[int, int] | None = None

        async def committed() -> bool:
            nonlocal before
            last, far = await self._stand()
            if last < epoch or before is None:
                before = far
            return last >= epoch and far != before

        await becomes(committed)

    async def finish(self) -> None:
        """Let everything come to rest; every payment settled once, every merchant told once.

        Raises:
            AssertionError: something was lost or doubled.
        """
        self._enough.set()
        await self._paying
        await becomes(lambda: self._told_of(0))
        # The clock's part: leases of killed and frozen dispatchers run out now, not in a minute.
        await self.conn.execute(
            "UPDATE deliveries SET lease_until = now() WHERE lease_token IS NOT NULL"
        )
        await becomes(lambda: self._told_of(4))
        for daemon in (self.standby, self.leader):
            assert await daemon.program.stop() == 0, daemon.program.said
        assert await self._told() == (self.paid,) * 5
        ids: dict[str, set[str]] = {}
        for webhook in self.site.merchant.received:
            session = json.loads(webhook.body)["data"]["session_id"]
            ids.setdefault(session, set()).add(webhook.id)
        assert len(ids) == self.paid
        assert all(len(told) == 1 for told in ids.values()), "a session was told of by two events"
        assert (await answer(self.site.environ, "audit"))["healthy"]

    async def _told_of(self, column: int) -> bool:
        return (await self._told())[column] >= self.paid

    async def _told(self) -> tuple[int, ...]:
        [row] = await (await self.conn.execute(_TOLD)).fetchall()
        return tuple(row)


async def becomes(look: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is so: rows have no event."""
    async with asyncio.timeout(60):
        while not await look():  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)


@asynccontextmanager
async def open_rivals(database_url: str, rng: Random) -> AsyncIterator[Rivals]:
    """Open a shop that is being paid, with two daemons that watch its account."""
    async with (
        open_site(database_url, close_every_s=LEDGER_S) as site,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn,
    ):
        names = ("--name", "Shop", "--account", site.shop.account_id)
        url = ("--webhook-url", f"{site.merchant.url}/hook")
        await answer(site.environ, "merchant", "create", *names, *url)
        await conn.execute(_OPEN_SESSIONS, [SESSIONS])
        async with AsyncExitStack() as daemons:
            rivals = Rivals(site, daemons, rng, conn)
            await rivals.start()
            yield rivals

"""10,000 watched accounts and a network on which one operation of a hundred is for them.

A real daemon reads the network-wide stream: first a backlog, then what is closed while it looks.
Printed is what it costs: connections to Horizon, memory, records a second. Refused is a run in
which anything of ours is not settled exactly once.
"""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from statistics import median
from urllib.parse import urlsplit

import psycopg
from rich.console import Console
from rich.table import Table
from stellar_sdk import CreateAccount, IdMemo, Payment

from paywatch.domain.ledger import Position
from paywatch.sim import NetworkSettings, SimNetwork
from paywatch.sim.wallet import NATIVE
from support import address
from support.databases import open_cluster
from support.processes import Seen, look_at
from support.program import Program, running
from support.shops import Opening
from support.site import environ_of, settings_of

STRANGERS = 200
SHARE = 100  # one operation of so many is ours
TX_OPERATIONS = 4
LEDGER_OPERATIONS = 400
LONGEST_S = 1800.0
LIVE_LEDGERS = 20


@dataclass
class Crowd:
    """The network, its strangers, and those of its accounts that are watched."""

    network: SimNetwork
    watched: Sequence[str]
    ours: int = 0  # operations for them so far, each for a session of its own
    operations: int = 0

    async def open(self, payments: int) -> None:
        """Make the accounts that will be paid; the other watched ones are not on the ledger."""
        strangers = [address(f"stranger {n}") for n in range(STRANGERS)]
        paid = [*strangers, *self.watched[: payments + 1]]
        for start in range(0, len(paid), 100):
            made = [CreateAccount(account, "10") for account in paid[start : start + 100]]
            self.network.submit(self.network.root.build(made))
        await self.network.close_ledger()
        self._strangers = strangers

    async def close_ledger(self, rng: Random, at: datetime | None = None) -> None:
        """Close a ledger with LEDGER_OPERATIONS, every SHAREth of them ours."""
        root = self.network.root
        for _ in range(LEDGER_OPERATIONS // SHARE):
            self.ours += 1
            account = self.watched[self.ours % len(self.watched)]
            self.network.submit(root.pay(account, "10", memo=IdMemo(self.ours)))
        for _ in range((LEDGER_OPERATIONS - LEDGER_OPERATIONS // SHARE) // TX_OPERATIONS):
            payments = [
                Payment(rng.choice(self._strangers), NATIVE, f"{rng.randint(1, 500)}")
                for _ in range(TX_OPERATIONS)
            ]
            self.network.submit(root.build(payments, IdMemo(rng.randint(1, 10**9))))
        self.operations += LEDGER_OPERATIONS
        await self.network.close_ledger(at)


@dataclass
class Watch:
    """The daemon as the system sees it, sampled."""

    program: Program
    port: int
    seen: list[Seen] = field(default_factory=list)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        sampler = asyncio.create_task(self._sample())
        try:
            yield
        finally:
            sampler.cancel()
            await asyncio.gather(sampler, return_exceptions=True)

    def look(self) -> Seen:
        self.seen.append(look_at(self.program.process.pid, self.port))
        return self.seen[-1]

    async def _sample(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(0.25)


async def until_settled(url: str, count: int) -> None:
    """Wait until so many credits are in the database; polled, for it tells nobody."""
    async with (
        asyncio.timeout(LONGEST_S),
        await psycopg.AsyncConnection.connect(url, autocommit=True) as conn,
    ):
        while True:
            found = await (await conn.execute("SELECT count(*) FROM credits")).fetchone()
            if found is not None and found[0] >= count:
                return
            await asyncio.sleep(0.05)


def require_all_settled_once(url: str, crowd: Crowd) -> None:
    """Refuse the figures of a run that lost something of ours, or counted it twice.

    Raises:
        AssertionError: saying what is wrong.
    """
    history, watched = crowd.network.ledger.history, set(crowd.watched)
    ours = [
        op.id for op in history.payments if op.type == "payment" and op.details["to"] in watched
    ]
    with psycopg.connect(url) as conn:
        credits_ = [row[0] for row in conn.execute("SELECT operation_id FROM credits ORDER BY 1")]
        [(paid, events)] = conn.execute(
            "SELECT count(*) FILTER (WHERE status = 'paid' AND paid_how = 'exact'),"
            " (SELECT count(*) FROM events WHERE type = 'checkout.session.paid')"
            " FROM checkout_sessions"
        ).fetchall()
    assert credits_ == ours, f"{len(credits_)} credits of {len(ours)} payments to us"
    assert (paid, events) == (len(ours), len(ours)), f"{paid} paid sessions, {events} events"


async def run(url: str, accounts: int, operations: int, rng: Random) -> dict[str, float]:
    """Run all of it; gives the figures by name."""
    ledgers = operations // LEDGER_OPERATIONS
    started_at = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=5 * (ledgers + 5))
    async with SimNetwork(NetworkSettings(started_at=started_at)) as network:
        crowd = Crowd(network, [address(f"watched {n}") for n in range(accounts)])
        sessions = (ledgers + LIVE_LEDGERS) * (LEDGER_OPERATIONS // SHARE)
        await crowd.open(sessions)
        begin = Position.after_ledger(network.ledger.latest.sequence)
        due = [datetime.now(UTC) + timedelta(days=1)]
        closed_at = network.ledger.latest.closed_at
        Opening(crowd.watched, sessions, begin, closed_at, due, told=False).write(url)
        for _ in range(ledgers):
            await crowd.close_ledger(rng)
        environ = environ_of(settings_of(network, url) | {"PAYWATCH_LISTEN_MODE": "network"})
        async with running(environ, "run") as program:
            figures = await _watch(url, crowd, program, rng)
            assert await program.stop() == 0, program.said[-2000:]
        require_all_settled_once(url, crowd)
        return figures


async def _watch(url: str, crowd: Crowd, program: Program, rng: Random) -> dict[str, float]:
    watch = Watch(program, urlsplit(crowd.network.url).port or 0)
    await program.url()
    at_start, began = watch.look(), time.perf_counter()
    async with watch.watching():
        await until_settled(url, crowd.ours)
        took_s = time.perf_counter() - began
        backlog, ours = crowd.operations, crowd.ours
        behind, delays = watch.look(), list[float]()
        for _ in range(LIVE_LEDGERS):
            now = datetime.now(UTC).replace(microsecond=0)
            await crowd.close_ledger(rng, max(now, crowd.network.ledger.latest.closed_at))
            closed = time.perf_counter()
            await until_settled(url, crowd.ours)
            delays.append(time.perf_counter() - closed)
        at_end = watch.look()
    return {
        "accounts watched": len(crowd.watched),
        "operations in the backlog": backlog,
        "of these ours": ours,
        "seconds to read and settle the backlog": took_s,
        "records read a second": backlog / took_s,
        "ours settled a second": ours / took_s,
        "connections to Horizon, at most": max(seen.connections for seen in watch.seen),
        "connections to Horizon, at the end": at_end.connections,
        "MiB of memory at the start": at_start.rss_mib,
        "MiB of memory behind the backlog": behind.rss_mib,
        "MiB of memory, at most": max(seen.rss_mib for seen in watch.seen),
        "MiB of memory at the end": at_end.rss_mib,
        "live: seconds from a ledger's close to ours settled, median": median(delays),
        "live: the same, at most": max(delays),
    }


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--accounts", type=int, default=10_000)
    parser.add_argument("--operations", type=int, default=40_000, help="in the backlog")
    parser.add_argument("--seed", type=int, default=20_261_120)
    options = parser.parse_args()
    with open_cluster() as cluster:
        url = cluster.create("crowd")
        figures = asyncio.run(run(url, options.accounts, options.operations, Random(options.seed)))
    table = Table(title=f"A crowd of accounts (seed {options.seed})", show_header=False)
    for name, value in figures.items():
        table.add_row(name, f"{value:,.2f}" if value < 10 else f"{value:,.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()

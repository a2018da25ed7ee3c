"""Every Horizon away for a day of the ledger's time, with payments going on; then back, ailing.

Three instances serve one ledger to one daemon. It follows the ledger; then all of them stop, and a
day of ledgers closes. They come back: the first lags by hours, the second has forgotten all but the
last hour, the third is well. Who was paid what, and in time or not, is worked out here from the
plan of the payments alone, and held against the database.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

import psycopg
from stellar_sdk import IdMemo

from paywatch.domain.ledger import Position, format_stroops
from paywatch.horizon.timing import Timing
from paywatch.sim import HorizonServer, LedgerSettings, NetworkSettings, SimNetwork
from support.databases import Cluster
from support.program import Program, running
from support.shops import AMOUNT, RATES, Opening
from support.site import environ_of, settings_of

DAY: Final = timedelta(days=1)
LEDGER: Final = timedelta(seconds=5)
SHOPS: Final = 3
LAG_LEDGERS: Final = 2160  # three hours
KEPT_LEDGERS: Final = 720  # one hour
LONGEST_S: Final = 300.0

LAGS, FORGOT, WELL = "lags by three hours", "has the last hour only", "is well"

_ALL_CREDITED = "SELECT count(*) FROM credits"
_NONE_OPEN = "SELECT count(*) FROM checkout_sessions WHERE status NOT IN ('paid', 'expired')"
_EXPIRED_SINCE = """
SELECT count(*) FROM checkout_sessions WHERE status = 'expired' AND expires_at >= %s"""
_OUTCOMES = """
SELECT s.muxed_id, s.status, s.received, s.paid_how,
       count(*) FILTER (WHERE c.outcome = 'applied'), count(*) FILTER (WHERE c.outcome = 'late'),
       count(*) FILTER (WHERE c.outcome = 'duplicate'),
       (SELECT count(*) FROM events e WHERE e.subject = s.id AND e.type LIKE '%.paid'),
       (SELECT count(*) FROM events e WHERE e.subject = s.id AND e.type LIKE '%.expired')
  FROM checkout_sessions s LEFT JOIN credits c ON c.session_id = s.id
 GROUP BY s.id ORDER BY s.muxed_id"""


@dataclass(frozen=True, order=True)
class Planned:
    """One payment: at a ledger's close, for a session, in stroops."""

    at: datetime
    session: int
    amount: int


@dataclass(frozen=True)
class Outcome:
    """What must become of a session; the order is that of a row of _OUTCOMES."""

    session: int
    status: str
    received: int
    paid_how: str | None
    applied: int
    late: int
    duplicate: int
    paid_events: int
    expired_events: int

    @classmethod
    def of(cls, session: int, deadline: datetime, payments: Sequence[Planned]) -> "Outcome":
        """Work it out, all ledgers read past the deadline: one payment after the other."""
        received, counts = 0, Counter[str]()
        for payment in sorted(payments):
            if received >= AMOUNT:
                counts["duplicate"] += 1
            elif payment.at > deadline:
                counts["late"] += 1
            else:
                counts["applied"] += 1
                received += payment.amount
        paid = received >= AMOUNT
        how = ("over" if received > AMOUNT else "exact") if paid else None
        return cls(session, "paid" if paid else "expired", received, how, counts["applied"],
                   counts["late"], counts["duplicate"], int(paid), int(not paid))  # fmt: skip


@dataclass
class Figures:
    """What the outage came to."""

    ledgers: int = 0
    payments: int = 0
    closed_while_away: int = 0
    away_s: float = 0.0
    catch_up_s: float = 0.0  # until every payment was a credit
    decided_s: float = 0.0  # and every session paid or expired
    statuses: Counter[str] = field(default_factory=Counter)
    late: int = 0
    requests: dict[str, int] = field(default_factory=dict)  # after the return, by instance
    wrong: list[str] = field(default_factory=list)


class Plan:
    """Sessions whose deadlines lie in the outage, and how each is paid."""

    def __init__(self, begin: datetime, sessions: int, rng: Random) -> None:
        self._rng = rng
        ledgers = DAY // LEDGER
        self.deadlines = [
            begin + rng.randint(ledgers // 100, ledgers - 100) * LEDGER
            + timedelta(seconds=rng.choice([0, 1, 2]))
            for _ in range(sessions)
        ]  # fmt: skip
        self._begin = begin
        payments = sorted(
            payment
            for number, deadline in enumerate(self.deadlines, 1)
            for payment in self._payments(number, deadline)
        )
        self.payments, self.left = payments, deque(payments)  # left: for ledgers to come

    def outcomes(self) -> list[Outcome]:
        """What must become of each session."""
        return [
            Outcome.of(number, deadline, [p for p in self.payments if p.session == number])
            for number, deadline in enumerate(self.deadlines, 1)
        ]

    def _payments(self, number: int, deadline: datetime) -> list[Planned]:
        in_time, last, late = self._early(deadline), _ledger_before(deadline), self._late(deadline)
        whole, part = AMOUNT, AMOUNT // 4
        ways = [
            [(in_time, whole)],
            [(last, whole)],  # in the last ledger that is in time
            [(last + LEDGER, whole)],  # in the first that is not
            [(late, whole)],
            [(in_time, part), (last, whole - part)],
            [(in_time, part), (late, whole)],
            [(in_time, part)],
            [(in_time, whole), (late, whole)],  # twice
            [(last, 2 * whole)],
            [],
        ]
        return [Planned(at, number, amount) for at, amount in self._rng.choice(ways)]

    def _early(self, deadline: datetime) -> datetime:
        ledgers = (deadline - self._begin) // LEDGER
        return self._begin + self._rng.randint(1, ledgers - 2) * LEDGER

    def _late(self, deadline: datetime) -> datetime:
        return _ledger_before(deadline) + self._rng.randint(2, 90) * LEDGER


def _ledger_before(deadline: datetime) -> datetime:
    """The last close that is not after a deadline; ledgers close at every fifth second."""
    return deadline - timedelta(seconds=deadline.timestamp() % LEDGER.total_seconds())


@dataclass
class Outage:
    """One run.

    Attributes:
        instances: of Horizon, by how they are when they come back, in the order they are asked in.
        url: of the database.
    """

    network: SimNetwork
    instances: dict[str, HorizonServer]
    url: str
    plan: Plan
    accounts: Sequence[str]
    figures: Figures = field(default_factory=Figures)

    async def run(self) -> Figures:
        """Follow, lose every Horizon for a day, get them back, catch up; compare."""
        begin = self._now
        addresses = ",".join(instance.url for instance in self.instances.values())
        settings = settings_of(self.network, self.url) | {"PAYWATCH_HORIZON_URL": addresses}
        async with running(environ_of(settings), "run") as daemon:
            await daemon.url()
            await self._close_until(begin + DAY / 100)
            await self._until(_ALL_CREDITED, self.figures.payments)
            away_at = self._now
            await self._lose_horizon(daemon, begin + DAY)
            expired = await self._ask(_EXPIRED_SINCE, away_at)
            self._require(expired == 0, f"{expired} sessions expired while Horizon was away")
            await self._bring_back()
            await self._catch_up()
            assert await daemon.stop() == 0, daemon.said[-2000:]
        self._compare()
        return self.figures

    async def _lose_horizon(self, daemon: Program, until: datetime) -> None:
        """Stop every instance, see the daemon notice, and let the ledger go on without it."""
        began, noticed = time.monotonic(), _reconnects(daemon)
        for instance in self.instances.values():
            await instance.stop()
        before = self.figures.payments
        await self._close_until(until)
        await self._pay_unnamed()
        wanted = noticed + len(self.accounts)
        async with asyncio.timeout(LONGEST_S):
            await daemon.log.wait_for(lambda _: _reconnects(daemon) >= wanted)
        # A root document is believed for some seconds. In these a real instance forgets no day.
        await asyncio.sleep(max(0.0, Timing().root_age_s + 1 - (time.monotonic() - began)))
        self.figures.closed_while_away = self.figures.payments - before
        self.figures.away_s = time.monotonic() - began

    async def _bring_back(self) -> None:
        latest = self.network.ledger.latest.sequence
        self.instances[LAGS].view.lag = LAG_LEDGERS
        self.instances[FORGOT].view.keep_from(latest - KEPT_LEDGERS)
        for instance in self.instances.values():
            instance.requests.total = 0
            await instance.start()

    async def _catch_up(self) -> None:
        """Wait until all is settled and nothing is open; the ledger goes on meanwhile."""
        began = time.monotonic()
        clock = asyncio.create_task(self._keep_closing())
        await self._until(_ALL_CREDITED, self.figures.payments)
        self.figures.catch_up_s = time.monotonic() - began
        await self._until(_NONE_OPEN, 0)
        self.figures.decided_s = time.monotonic() - began
        clock.cancel()
        await asyncio.gather(clock, return_exceptions=True)
        self.figures.requests = {
            name: instance.requests.total for name, instance in self.instances.items()
        }

    async def _keep_closing(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            await self._close(max(self._now, datetime.now(UTC).replace(microsecond=0)))

    async def _close_until(self, end: datetime) -> None:
        """Close a ledger every five seconds of its own time, with what is planned for each."""
        while self._now < end:
            closes_at = self._now + LEDGER
            while self.plan.left and self.plan.left[0].at <= closes_at:
                self._submit(self.plan.left.popleft())
            await self._close(closes_at)

    def _submit(self, payment: Planned) -> None:
        account = self.accounts[payment.session % len(self.accounts)]
        lumens, memo = format_stroops(payment.amount), IdMemo(payment.session)
        self.network.submit(self.network.root.pay(account, lumens, memo=memo))
        self.figures.payments += 1

    async def _pay_unnamed(self) -> None:
        """Pay every account behind all deadlines, for nothing: its ledger is read past them."""
        for account in self.accounts:
            self.network.submit(self.network.root.pay(account, "1"))
            self.figures.payments += 1
        await self._close(self._now + LEDGER)

    async def _close(self, at: datetime) -> None:
        self.figures.ledgers += 1
        await self.network.close_ledger(at)

    @property
    def _now(self) -> datetime:
        """The ledger's."""
        return self.network.ledger.latest.closed_at

    async def _ask(self, statement: str, *values: object) -> int:
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as conn:
            row = await (await conn.execute(statement, values)).fetchone()
            assert row is not None
            return int(row[0])

    async def _until(self, statement: str, wanted: int) -> None:
        """Wait until a count is as wanted; polled, for the database tells nobody."""
        async with asyncio.timeout(LONGEST_S):
            while True:
                if await self._ask(statement) == wanted:
                    return
                await asyncio.sleep(0.1)

    def _compare(self) -> None:
        """Hold every session, and every payment, against what the plan comes to."""
        with psycopg.connect(self.url) as conn:
            found = [Outcome(*row) for row in conn.execute(_OUTCOMES)]
            credited = [row[0] for row in conn.execute("SELECT operation_id FROM credits")]
        for planned, outcome in zip(self.plan.outcomes(), found, strict=True):
            self._require(planned == outcome, f"{outcome}, planned: {planned}")
        watched = set(self.accounts)
        paid = [
            operation.id
            for operation in self.network.ledger.history.payments
            if operation.type == "payment" and operation.details["to"] in watched
        ]
        self._require(sorted(credited) == paid, f"{len(credited)} credits of {len(paid)} payments")
        self.figures.statuses.update(outcome.status for outcome in found)
        self.figures.late = sum(outcome.late for outcome in found)

    def _require(self, holds: bool, problem: str) -> None:
        if not holds:
            self.figures.wrong.append(problem)


@asynccontextmanager
async def open_outage(cluster: Cluster, sessions: int, rng: Random) -> AsyncIterator[Outage]:
    """A day that ends about now, with its sessions and the three instances."""
    now = int(datetime.now(UTC).timestamp())
    begin = datetime.fromtimestamp(now - now % 5, UTC) - DAY - timedelta(minutes=5)
    settings = NetworkSettings(started_at=begin, ledger=LedgerSettings(rates=RATES))
    async with SimNetwork(settings) as network:
        shops = await network.fund(*(f"shop {n}" for n in range(SHOPS)))
        instances = {
            LAGS: network.horizon,
            FORGOT: await network.add_horizon(),
            WELL: await network.add_horizon(),
        }
        accounts, latest = [shop.account_id for shop in shops], network.ledger.latest
        plan = Plan(latest.closed_at, sessions, rng)
        deadlines = [plan.deadlines[-1], *plan.deadlines[:-1]]  # the n-th takes the n-th from 0
        position = Position.after_ledger(latest.sequence)
        url = cluster.create("outage")
        Opening(accounts, sessions, position, latest.closed_at, deadlines, told=False).write(url)
        yield Outage(network, instances, url, plan, accounts)


def _reconnects(daemon: Program) -> int:
    return sum(line.get("event") == "horizon_reconnect" for line in daemon.log)

"""The audit beside the live stream, on a simulated network whose Horizon ingests ledgers late."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from random import Random

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from stellar_sdk import IdMemo

from paywatch.domain.ledger import Position
from paywatch.horizon.pool import HorizonPool
from paywatch.horizon.timing import Timing as HorizonTiming
from paywatch.service.audit import Auditor
from paywatch.service.audit_report import AuditReport
from paywatch.service.settle import Order
from paywatch.sim import NetworkSettings, SimNetwork, Wallet
from paywatch.sim.signals import Signal
from support import NOW, START, Shop
from support.horizons import pool_of

TIMING = HorizonTiming(
    reconcile_s=0.05,
    overlap_s=0.0,  # one instance
    root_age_s=0.0,
    backoff_base_s=0.002,
    backoff_cap_s=0.02,
)
AMOUNT = 10_000_000  # stroops: one lumen


@dataclass
class Town:
    """A shop on a simulated network, followed by one live stream."""

    network: SimNetwork
    shop: Shop
    payer: Wallet
    source: HorizonPool
    position: Position = START  # of the live stream
    moved: Signal = field(default_factory=Signal)

    @property
    def auditor(self) -> Auditor:
        return Auditor(
            self.shop.engine,
            self.shop.settler,
            self.source,
            lambda: NOW,
            Random(1),
            self.shop.metrics,
        )

    async def audit(self) -> AuditReport:
        return await self.auditor.run_once()

    async def follow(self) -> None:
        """Settle what the live stream brings, for ever."""
        claim = await self.shop.claim()
        async with aclosing(self.source.batches(self.shop.account, claim.position)) as batches:
            async for batch in batches:
                await self.shop.settler.settle(Order(batch, by=claim.stream, claim=claim))
                claim, self.position = replace(claim, position=batch.upto), batch.upto
                self.moved.notify()

    async def pay(self, number: int, *, late: bool) -> None:
        """Pay a session of that number in a ledger of its own, which may be ingested late."""
        if late:
            self.network.horizon.view.gaps.add(self.network.ledger.latest.sequence + 1)
        await self.network.pay(self.payer.pay(self.shop.account, "1", memo=IdMemo(number)))

    async def statuses(self) -> list[str]:
        rows = await self.shop.rows("SELECT status FROM checkout_sessions ORDER BY muxed_id")
        return [status for (status,) in rows]

    async def read_upto(self, ledger: int) -> None:
        """Wait until the live stream has."""
        async with asyncio.timeout(60):
            await self.moved.wait_for(lambda: START != self.position >= Position.of(ledger))

    async def add_sessions(self, numbers: range) -> None:
        for number in numbers:
            opened = {"opened_position": self.shop.position, "amount": AMOUNT}
            await self.shop.add_session(number, **opened)


@asynccontextmanager
async def followed(town: Town) -> AsyncIterator[None]:
    following = asyncio.create_task(town.follow())
    try:
        yield
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


@pytest.fixture
async def town(engine: AsyncEngine) -> AsyncIterator[Town]:
    async with SimNetwork(NetworkSettings(started_at=NOW)) as network:
        payer, wallet = await network.fund("payer", "shop")
        async with pool_of(network.passphrase, network.url, timing=TIMING) as source:
            shop = Shop(engine, account=wallet.account_id, position=await source.tip())
            yield Town(network, await shop.open(), payer, source)


async def test_a_ledger_that_horizon_ingests_late_behind_the_cursor_is_found_by_the_audit(
    town: Town,
) -> None:
    await town.add_sessions(range(1, 4))
    async with followed(town):
        await town.pay(1, late=False)
        await town.pay(2, late=True)
        await town.pay(3, late=False)
        last = town.network.ledger.latest.sequence
        await town.read_upto(last)
        assert await town.statuses() == ["paid", "pending", "paid"]
        assert (await town.audit()).findings == (), "Horizon does not know of it either"
        town.network.horizon.view.gaps.clear()
        await town.network.close_ledger()
        await town.read_upto(last + 1)
        assert await town.statuses() == ["paid", "pending", "paid"], "no stream looks back"
        report = await town.audit()
        assert (report.missing, report.settled, report.healthy) == (1, 1, True)
        assert await town.statuses() == ["paid"] * 3
    assert (await town.audit()).findings == ()


async def test_audits_beside_the_live_stream_lose_double_and_accuse_nothing(town: Town) -> None:
    """Ledgers come late, are filled in at any time, and two audits run all the while."""
    rng, sessions = Random(7), range(1, 41)
    gaps = town.network.horizon.view.gaps
    await town.add_sessions(sessions)
    reports: list[AuditReport] = []

    async def keep_auditing() -> None:
        while True:
            reports.append(await town.audit())

    async with followed(town):
        audits = [asyncio.create_task(keep_auditing()) for _ in range(2)]
        for number in sessions:
            await town.pay(number, late=rng.random() < 0.4)
            if gaps and rng.random() < 0.3:
                gaps.remove(rng.choice(sorted(gaps)))
        gaps.clear()
        await town.network.close_ledger()
        last = town.network.ledger.latest.sequence
        await town.read_upto(last)
        for audit in audits:
            audit.cancel()
        await asyncio.gather(*audits, return_exceptions=True)
    reports.append(await town.audit())
    assert await town.statuses() == ["paid"] * len(sessions)
    assert await town.shop.rows("SELECT outcome, count(*) FROM credits GROUP BY outcome") == [
        ("applied", len(sessions))
    ]
    assert sum(report.mismatches for report in reports) == 0
    assert (await town.audit()).findings == ()

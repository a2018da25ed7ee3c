"""A till: a shop's sessions in a database, payers on a simulated network, and both clocks."""

from collections.abc import AsyncIterator, Awaitable, Callable, Container
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine
from stellar_sdk import ChangeTrust, IdMemo, Payment, TransactionEnvelope

from paywatch.domain.announcement import Trace
from paywatch.domain.checkout import CheckoutSession
from paywatch.domain.ledger import Batch, Position
from paywatch.horizon.source import HorizonSource
from paywatch.horizon.timing import Timing
from paywatch.service.announce import Announced, Announcements
from paywatch.service.recover import Recovery, RecoveryReport
from paywatch.service.settle import Order
from paywatch.service.trace import Tracer
from paywatch.sim import NetworkSettings, SimNetwork, Wallet, asset_of
from support import NOW, Shop

USD = asset_of("USD", "issuer")
PRICE = "0.0000100"  # what a session of `make_session` asks
LOG = "SELECT before, after, cause, by FROM session_transitions ORDER BY id"
HASTY = Timing(root_age_s=0.0, get_s=10.0)


async def nothing() -> None:
    """What happens meanwhile, where nothing does."""


@dataclass
class Till:
    """A shop that is watched from now on, and customers.

    Attributes:
        now: our clock.
        meanwhile: happens after each look-up, before anything is made of it.
        traced: the hashes that were looked up.
        paged: the accounts whose pages were read.
    """

    shop: Shop
    network: SimNetwork
    source: HorizonSource
    wallet: Wallet  # the shop's own
    alice: Wallet
    now: datetime = NOW
    meanwhile: Callable[[], Awaitable[None]] = nothing
    traced: list[str] = field(default_factory=list)
    paged: list[str] = field(default_factory=list)

    def clock(self) -> datetime:
        return self.now

    async def trace(self, tx_hash: str, watched: Container[str]) -> Trace:
        self.traced.append(tx_hash)
        trace = await self.source.trace(tx_hash, watched)
        await self.meanwhile()
        return trace

    async def page(self, account: str, after: Position) -> Batch:
        self.paged.append(account)
        return await self.source.page(account, after)

    @property
    def announcements(self) -> Announcements:
        settler, engine = self.shop.settler, self.shop.engine
        return Announcements(Tracer(engine, settler, self, self.clock, Random(1), "announce"))

    async def announce(
        self, tx_hash: str, number: int = 1, until: datetime | None = None
    ) -> Announced:
        return await self.announcements.announce(await self.id_of(number), tx_hash, until)

    @property
    def recovery(self) -> Recovery:
        settler, metrics = self.shop.settler, self.shop.metrics
        return Recovery(self.shop.engine, settler, self, self.clock, Random(1), metrics)

    async def recover(self) -> RecoveryReport:
        return await self.recovery.run_once()

    async def id_of(self, number: int) -> Any:
        sql = "SELECT id FROM checkout_sessions WHERE muxed_id = :n"
        [(id_,)] = await self.shop.rows(sql, n=number)
        return id_

    def payment(self, number: int = 1, amount: str = PRICE) -> TransactionEnvelope:
        """Signed, and not handed over yet."""
        return self.alice.pay(self.wallet.account_id, amount, memo=IdMemo(number))

    async def pay(self, number: int = 1, amount: str = PRICE) -> str:
        """The hash of a payment that the ledger has."""
        (tx,) = await self.network.pay(self.payment(number, amount))
        return tx.hash

    async def close_at(self, moment: datetime) -> None:
        """Close a ledger at that moment of its own clock."""
        await self.network.close_ledger(moment)

    async def pass_time(self, seconds: float) -> None:
        """Let both clocks go on, from the later one."""
        later = max(self.now, self.network.ledger.latest.closed_at)
        self.now = later + timedelta(seconds=seconds)
        await self.close_at(self.now)

    async def settle_live(self) -> None:
        """Settle all that the ledger has, as the stream would."""
        claim = await self.shop.claim()
        batch = await self.source.page(self.shop.account, claim.position)
        await self.shop.settler.settle(Order(batch, by=claim.stream, claim=claim))

    async def log(self) -> list[tuple[Any, ...]]:
        return await self.shop.rows(LOG)

    async def causes(self) -> list[str]:
        return [row[2] for row in await self.log()]


@asynccontextmanager
async def open_till(engine: AsyncEngine) -> AsyncIterator[Till]:
    """Open one, a minute after the network began; alice has lumens and US dollars."""
    settings = NetworkSettings(started_at=NOW - timedelta(minutes=1))
    async with SimNetwork(settings) as network:
        alice, wallet, issuer = await network.fund("alice", "shop", "issuer")
        await network.pay(alice.build([ChangeTrust(USD)]), wallet.build([ChangeTrust(USD)]))
        await network.pay(issuer.build([Payment(alice.account_id, USD, "100")]))
        async with HorizonSource(network.url, network.passphrase, timing=HASTY) as source:
            shop = Shop(engine, account=wallet.account_id, position=await source.tip())
            yield Till(await shop.open(), network, source, wallet, alice)


async def session(till: Till, number: int = 1, **changes: Any) -> CheckoutSession:
    """Open a session at the till."""
    opened = {"opened_position": till.shop.position}
    return await till.shop.add_session(number, **(opened | changes))

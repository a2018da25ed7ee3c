"""The simulated network of one run: the ledger, its Horizons and what befalls them, and wallets."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from random import Random
from typing import Final, cast

from stellar_sdk import (
    Asset,
    ChangeTrust,
    CreateAccount,
    HashMemo,
    IdMemo,
    Memo,
    Payment,
    TextMemo,
)

from paywatch.domain import ledger as domain
from paywatch.domain.checkout import CheckoutSession
from paywatch.sim import (
    FaultRule,
    Faults,
    FaultSettings,
    HorizonServer,
    HorizonSettings,
    LedgerSettings,
    NetworkSettings,
    SimNetwork,
    StreamSettings,
    TxRefused,
    Wallet,
    asset_of,
)
from paywatch.sim.history import ClosedLedger
from paywatch.sim.network import Envelope
from paywatch.sim.wallet import NATIVE
from simulation.book import Book, Diary
from simulation.plan import LEDGER_S, HorizonPlan, Plan

USD: Final = asset_of("USD", "issuer")
SPOOF: Final = asset_of("USD", "forger")
RATES: Final = {(NATIVE, USD): Fraction(1, 8), (USD, NATIVE): Fraction(8)}
CUSTOMERS: Final = ("alice", "bob", "carol")
FIRST_LEDGER: Final = 50_000_000  # positions as long as on the public network
LATE: Final = 3  # ledgers, at most, until one that was hidden is shown


@dataclass
class Town:
    """The network, and people with money.

    Attributes:
        horizons: with their plans, in the order of the settings.
        foreign: another network, for a Horizon of it.
    """

    plan: Plan
    network: SimNetwork
    foreign: SimNetwork
    horizons: list[tuple[HorizonPlan, HorizonServer]]
    book: Book
    diary: Diary
    clock: Callable[[], datetime]
    rng: Random
    faults: list[Faults]
    garbled: float = 0.0  # the share of ledgers with a record that nobody can read
    _is_away: bool = field(default=False, init=False)

    @property
    def now(self) -> datetime:
        """The ledger's clock."""
        return self.network.ledger.latest.closed_at

    @property
    def latest(self) -> int:
        """The latest ledger's number."""
        return self.network.ledger.latest.sequence

    @property
    def urls(self) -> str:
        """The Horizons as the setting wants them."""
        return ",".join(server.url for _, server in self.horizons)

    def wallet(self, name: str) -> Wallet:
        """The wallet of a name."""
        return self.network.wallet(name)

    def has(self, account: str) -> bool:
        """Whether an account is on the ledger."""
        return self.network.ledger.state.account(account) is not None

    def submit(self, *envelopes: Envelope) -> list[str]:
        """Hand envelopes over; gives the hashes of those that were taken."""
        taken = []
        for envelope in envelopes:
            try:
                taken += self.network.submit(envelope)
            except TxRefused as refused:
                self.diary.note("ledger", f"refused {refused}")
        return taken

    async def close(self, at: datetime | None = None) -> None:
        """Close a ledger at the present time of the world, or at a later one."""
        self._pay_elsewhere()
        for network in (self.network, self.foreign):
            second = (at or self.clock()).replace(microsecond=0)
            closed_at = max(second, network.ledger.latest.closed_at)
            if network is self.network and self.rng.random() < self.garbled and not at:
                self._garble(network.ledger.close(closed_at))  # seen with the next one
            await network.close_ledger(closed_at)
        latest = self.network.ledger.latest
        self._forget()
        count = latest.successful + latest.failed
        self.diary.note("ledger", f"{latest.sequence} {latest.hash[:12]} {count} tx")

    def _pay_elsewhere(self) -> None:
        """Pay the last session on the other network: whoever believes its Horizon takes it."""
        root, ledger = self.foreign.root, self.foreign.ledger
        for session in self.book.open(self.now)[-1:]:
            to, amount = session.account, domain.format_stroops(session.amount)
            if ledger.state.account(to) is None:
                self.foreign.submit(root.build([CreateAccount(to, "10")]))
            self.foreign.submit(root.pay(to, amount, memo=memo_of(session)))

    async def keep_closing(self) -> None:
        """Close a ledger every five seconds."""
        while True:
            await asyncio.sleep(LEDGER_S)
            await self.close()

    def let_fail(self, *, fail: bool) -> None:
        """Let Horizon's faults begin, or end."""
        for faults in self.faults:
            faults.enabled = fail

    @property
    def struck(self) -> dict[str, int]:
        """How often each fault of Horizon has happened; and which of its instances were asked."""
        kinds = sum((faults.struck for faults in self.faults), Counter())
        asked = Counter(plan.kind for plan, server in self.horizons if server.requests.total)
        return {f"horizon_{kind}": count for kind, count in kinds.items()} | {
            f"instance_{kind}": count for kind, count in asked.items() if kind != "well"
        }

    async def go_away(self, seconds: float) -> None:
        """Take every Horizon away for a while."""
        if self._is_away:
            return
        self._is_away = True
        self.diary.fault("horizon", "away", f"for {seconds:.0f} s")
        for _, server in self.horizons:
            await server.stop()
        try:
            await asyncio.sleep(seconds)
        finally:
            for _, server in self.horizons:
                await server.start()
            self._is_away = False

    def change(self) -> None:
        """Let one that lags lag more or less."""
        lagging = [(plan, s) for plan, s in self.horizons if plan.kind == "lagging"]
        if lagging:
            plan, server = self.rng.choice(lagging)
            server.view.lag = self.rng.randint(0, 2 * plan.amount)
            self.diary.fault("horizon", "lag", str(server.view.lag))

    async def hide(self) -> None:
        """Let an instance show the next ledger late, behind everybody's cursor."""
        _, server = self.rng.choice([(p, s) for p, s in self.horizons if p.kind != "foreign"])
        hidden = self.latest + 1
        self.book.hidden.add(hidden)
        server.view.gaps.add(hidden)
        self.diary.fault("horizon", "hide", str(hidden))
        await asyncio.sleep(self.rng.randint(1, LATE) * LEDGER_S)
        server.view.gaps.discard(hidden)

    def recover(self) -> None:
        """Let all instances be well, but for the one of another network."""
        for plan, server in self.horizons:
            if plan.kind != "foreign":
                server.view.lag = 0
                server.view.gaps.clear()

    def _garble(self, closed: ClosedLedger) -> None:
        """Let one record of a ledger that nobody has seen yet be one that nobody can read."""
        watched = {registered.account for registered in self.book.merchants}
        found = [
            operation
            for operation in self.network.ledger.history.payments
            if operation.id >> 32 == closed.sequence
            and operation.tx.successful
            and operation.type == "payment"
            and operation.details["to"] in watched
            and operation.details["from"] != operation.details["to"]
        ]
        if found:
            garbled = self.rng.choice(found)
            cast("dict[str, object]", garbled.details)["amount"] = "1e3"
            self.book.planted[garbled.id] = garbled.details["to"]
            self.diary.fault("ledger", "garbled", str(garbled.id))

    def _forget(self) -> None:
        for plan, server in self.horizons:
            if plan.kind == "short":
                server.view.keep_from(max(FIRST_LEDGER, self.latest - plan.amount))


@asynccontextmanager
async def open_town(
    plan: Plan, book: Book, diary: Diary, clock: Callable[[], datetime]
) -> AsyncIterator[Town]:
    """Start the network and its Horizons, and give everybody money; nothing goes wrong yet."""
    async with AsyncExitStack() as stack:
        network, foreign = [
            await stack.enter_async_context(SimNetwork(_settings(plan, clock(), name)))
            for name in ("Simulated network", "Another network")
        ]
        town = Town(
            plan=plan,
            network=network,
            foreign=foreign,
            horizons=[],
            book=book,
            diary=diary,
            clock=clock,
            rng=Random(f"{plan.seed}/town"),
            faults=[network.faults, foreign.faults],
        )
        town.let_fail(fail=False)
        for number, horizon in enumerate(plan.horizons):
            town.horizons.append((horizon, await _open_horizon(town, number, horizon)))
        await _give_money(town)
        yield town


def _settings(plan: Plan, at: datetime, name: str) -> NetworkSettings:
    return NetworkSettings(
        started_at=at,
        ledger=LedgerSettings(passphrase=name, first_ledger=FIRST_LEDGER, rates=RATES),
        horizon=HorizonSettings(stream=StreamSettings(update_s=0.0)),
        faults=_fault_settings(plan, 0),
    )


def _fault_settings(plan: Plan, number: int) -> FaultSettings:
    rules = tuple(FaultRule(fault, rate, at) for fault, at, rate in plan.horizon_faults)
    return FaultSettings(rules, seed=plan.seed * 10 + number, delay_s=8.0)


async def _open_horizon(town: Town, number: int, horizon: HorizonPlan) -> HorizonServer:
    """The first of each network that is well is the network's own; the others are further ones."""
    if horizon.kind == "foreign":
        is_first = all(plan.kind != "foreign" for plan, _ in town.horizons)
        return town.foreign.horizon if is_first else await town.foreign.add_horizon()
    if horizon.kind == "well" and all(plan.kind != "well" for plan, _ in town.horizons):
        return town.network.horizon
    faults = Faults(_fault_settings(town.plan, number + 1))
    faults.enabled = False
    town.faults.append(faults)
    lag = horizon.amount if horizon.kind == "lagging" else 0
    return await town.network.add_horizon(lag=lag, faults=faults)


async def _give_money(town: Town) -> None:
    """Customers, both issuers, and those shops that are to be funded from the beginning."""
    root, issuer, forger = town.network.root, town.wallet("issuer"), town.wallet("forger")
    shops = [m.name for m in town.plan.merchants if m.funded]
    made = [*CUSTOMERS, "issuer", "forger", *shops]
    town.submit(root.build([CreateAccount(town.wallet(n).account_id, "1000000") for n in made]))
    await town.close()
    trusting = [town.wallet(name) for name in (*CUSTOMERS, *shops)]
    town.submit(*(w.build([ChangeTrust(USD), ChangeTrust(SPOOF)]) for w in trusting))
    await town.close()
    for source, asset in ((issuer, USD), (forger, SPOOF)):
        customers = [town.wallet(name).account_id for name in CUSTOMERS]
        town.submit(source.build([Payment(to, asset, "100000") for to in customers]))
    await town.close()


def sdk_asset(asset: domain.Asset) -> Asset:
    """An asset as the SDK has it."""
    return NATIVE if asset.issuer is None else Asset(asset.code, asset.issuer)


def memo_of(session: CheckoutSession) -> Memo:
    """The memo that names a session."""
    value = session.memo.value
    if session.memo.type is domain.MemoType.ID:
        return IdMemo(int.from_bytes(value, "big"))
    return TextMemo(value) if session.memo.type is domain.MemoType.TEXT else HashMemo(value)

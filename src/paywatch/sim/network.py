"""A whole simulated network: a ledger, its clock, and Horizon instances that serve it."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

from stellar_sdk import CreateAccount, FeeBumpTransactionEnvelope, TransactionEnvelope

from paywatch.sim.envelopes import root_keypair
from paywatch.sim.faults import Faults, FaultSettings
from paywatch.sim.history import AppliedTx, ClosedLedger
from paywatch.sim.horizon import HorizonServer, HorizonSettings, SeenRequest
from paywatch.sim.journal import Journal
from paywatch.sim.ledger import Ledger
from paywatch.sim.ledger import Settings as LedgerSettings
from paywatch.sim.pages import View
from paywatch.sim.signals import EventLog, Signal
from paywatch.sim.wallet import Wallet

LEDGER_S: Final = 5  # seconds between ledgers, where nobody says when one closes
Envelope = TransactionEnvelope | FeeBumpTransactionEnvelope


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """How a simulated network runs.

    Args:
        host, port: where Horizon listens; port 0 takes a free one.
        close_every_s: closes a ledger every so many seconds of the wall clock; None leaves it to
            `close_ledger`.
        started_at: the genesis ledger's time, aware; the wall clock's if None and a clock runs.
        ledger: passphrase, first ledger, market rates.
        horizon: streams, rate limit, submissions.
        faults: what goes wrong; nothing by default.
        journal: a file that makes the network survive its process; None for none.
    """

    host: str = "127.0.0.1"
    port: int = 0
    close_every_s: float | None = None
    started_at: datetime | None = None
    ledger: LedgerSettings = field(default_factory=LedgerSettings)
    horizon: HorizonSettings = field(default_factory=HorizonSettings)
    faults: FaultSettings = field(default_factory=FaultSettings)
    journal: Path | None = None


class SimNetwork:
    """The network as an async context manager.

    ::

        async with SimNetwork() as network:
            alice, shop = await network.fund("alice", "shop")
            await network.pay(alice.pay(shop.account_id, "12.5"))

    Args:
        settings: how it runs.
        wall_clock: the time of ledgers that the clock closes.
    """

    def __init__(
        self,
        settings: NetworkSettings | None = None,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.settings = settings or NetworkSettings()
        self._wall_clock = wall_clock
        self._journal = Journal(self.settings.journal) if self.settings.journal else None
        self.changed = Signal()
        self.ledger = self._open_ledger()
        self.faults = Faults(self.settings.faults)
        self._instances: list[HorizonServer] = []
        self.horizon = self._instance(View(self.ledger), self.faults)
        self._running = AsyncExitStack()
        self._taken: dict[str, int] = {}  # by account, since the last ledger

    @property
    def url(self) -> str:
        """Where Horizon listens."""
        return self.horizon.url

    @property
    def passphrase(self) -> str:
        """The network's name."""
        return self.ledger.passphrase

    @property
    def requests(self) -> EventLog[SeenRequest]:
        """The last requests to Horizon, and a way to wait for one."""
        return self.horizon.requests

    async def __aenter__(self) -> Self:
        """Listen, and start the clock if there is one."""
        await self.horizon.start(self.settings.host, self.settings.port)
        self._running.push_async_callback(self._stop_instances)
        if self.settings.close_every_s is not None:
            clock = asyncio.create_task(self._run_clock(self.settings.close_every_s))
            self._running.push_async_callback(_stop_task, clock)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the clock and every instance."""
        await self._running.aclose()

    async def add_horizon(
        self, *, lag: int = 0, elder: int | None = None, faults: Faults | None = None
    ) -> HorizonServer:
        """Another instance of the same network: behind, or short of history, or disturbed."""
        view = View(self.ledger, lag=lag, elder=elder)
        return await self._instance(view, faults or Faults()).start(self.settings.host)

    async def close_ledger(self, at: datetime | None = None) -> ClosedLedger:
        """Close a ledger with everything that was submitted, 5 seconds after the last by default.

        Raises:
            ValueError: `at` is before the last ledger's time.
        """
        closed_at = at or self.ledger.latest.closed_at + timedelta(seconds=LEDGER_S)
        closed = self._close(closed_at)
        await asyncio.sleep(0)  # let those who were woken run first
        return closed

    def reset(self, at: datetime | None = None) -> None:
        """Begin another history under the same name, as the testnet does a few times a year."""
        started_at = at or self.ledger.latest.closed_at + timedelta(seconds=LEDGER_S)
        if self._journal is not None:
            self._journal.clear()
            self._journal.append(started_at, [])
        self.ledger = Ledger(started_at, self.settings.ledger)
        self._taken.clear()
        for instance in self._instances:
            instance.view.ledger = self.ledger
        self.changed.notify()

    def wallet(self, name: str) -> Wallet:
        """The wallet of a name; its account need not exist yet.

        Each envelope that it builds takes the next sequence number, until a ledger closes: numbers
        that were taken and not submitted by then are free again.
        """
        return Wallet.named(name, self.passphrase, self._next_sequence)

    @property
    def root(self) -> Wallet:
        """The wallet that holds all lumens at the beginning."""
        return Wallet(root_keypair(self.passphrase), self.passphrase, self._next_sequence)

    def submit(self, *envelopes: Envelope) -> list[str]:
        """Hand envelopes over for the next ledger; gives their hashes.

        Raises:
            TxRefused: the network does not take one of them.
        """
        return [self.ledger.submit(envelope.to_xdr()).hash.hex() for envelope in envelopes]

    async def pay(self, *envelopes: Envelope, at: datetime | None = None) -> list[AppliedTx]:
        """Submit envelopes and close a ledger with them."""
        hashes = self.submit(*envelopes)
        await self.close_ledger(at)
        return [tx for tx in map(self.ledger.history.tx, hashes) if tx is not None]

    async def fund(self, *names: str, lumens: str = "10000") -> list[Wallet]:
        """Make the accounts of some names, in a ledger of their own."""
        wallets = [self.wallet(name) for name in names]
        made = [CreateAccount(wallet.account_id, lumens) for wallet in wallets]
        for start in range(0, len(made), 100):  # no transaction has more operations
            self.submit(self.root.build(made[start : start + 100]))
        await self.close_ledger()
        return wallets

    async def wait_for_ledger(self, sequence: int) -> ClosedLedger:
        """Wait until a ledger has closed."""
        await self.changed.wait_for(lambda: self.ledger.latest.sequence >= sequence)
        return self.ledger.latest

    async def wait_for_pending(self, count: int = 1) -> list[str]:
        """Wait until so many transactions wait for the next ledger; gives their envelopes."""
        await self.changed.wait_for(lambda: len(self.ledger.pending()) >= count)
        return self.ledger.pending()

    def _next_sequence(self, account_id: str) -> int:
        number = max(self.ledger.next_sequence(account_id), self._taken.get(account_id, 0) + 1)
        self._taken[account_id] = number
        return number

    def _instance(self, view: View, faults: Faults) -> HorizonServer:
        instance = HorizonServer(view, self.changed, faults, self.settings.horizon)
        self._instances.append(instance)
        return instance

    async def _stop_instances(self) -> None:
        for instance in self._instances:
            await instance.stop()

    def _open_ledger(self) -> Ledger:
        """Make the ledger, or make it again from the journal."""
        past = iter(self._journal or ())
        first = next(past, None)
        started_at = first[0] if first else self._started_at()
        if self._journal is not None and first is None:
            self._journal.append(started_at, [])
        ledger = Ledger(started_at, self.settings.ledger)
        for closed_at, envelopes in past:
            for envelope in envelopes:
                ledger.submit(envelope)
            ledger.close(closed_at)
        return ledger

    def _started_at(self) -> datetime:
        if self.settings.started_at is not None:
            return self.settings.started_at
        if self.settings.close_every_s is None:
            return datetime(2026, 1, 1, tzinfo=UTC)
        return self._wall_clock().replace(microsecond=0)

    def _close(self, closed_at: datetime) -> ClosedLedger:
        if self._journal is not None:
            self._journal.append(closed_at, self.ledger.pending())
        closed = self.ledger.close(closed_at)
        self._taken.clear()
        self.changed.notify()
        return closed

    async def _run_clock(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            now = self._wall_clock().replace(microsecond=0)
            # A ledger's time is in whole seconds, and never before the last one's.
            self._close(max(now, self.ledger.latest.closed_at))


async def serve(settings: NetworkSettings, ready: Callable[[SimNetwork], None]) -> None:
    """Run a network until cancelled; `ready` is called once Horizon listens."""
    async with SimNetwork(settings) as network:
        ready(network)
        await asyncio.Event().wait()


async def _stop_task(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

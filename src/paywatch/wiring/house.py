"""The parts of one process, joined: which implementation stands behind which protocol."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from random import Random

from sqlalchemy.ext.asyncio import AsyncEngine

from paywatch.config import Settings, ensure_secret_key
from paywatch.horizon.pool import HorizonPool
from paywatch.service import audit, dispatch, recover
from paywatch.service.announce import Announcements
from paywatch.service.audit import Auditor, AuditSource
from paywatch.service.backfill import Backfill, PageSource
from paywatch.service.checkout import Checkout
from paywatch.service.dispatch import Dispatcher, Sender
from paywatch.service.elect import Election
from paywatch.service.follow import Follower
from paywatch.service.gaps import Gaps
from paywatch.service.gauges import Gauges
from paywatch.service.held import HeldCredits
from paywatch.service.histories import Histories, present_history
from paywatch.service.letters import Letters
from paywatch.service.listen import Listener
from paywatch.service.lulls import Lulls
from paywatch.service.network import NetworkReader
from paywatch.service.recover import Recovery
from paywatch.service.settle import Settler
from paywatch.service.streams import Streams
from paywatch.service.trace import Tracer
from paywatch.service.watchdog import Watchdog
from paywatch.store.engine import create_lock_engine
from paywatch.telemetry import Metrics, Progress
from paywatch.webhooks.guard import Policy, check_url
from paywatch.webhooks.sealing import Vault
from paywatch.webhooks.signing import generate_secret, sign
from paywatch.wiring.horizons import open_pool
from paywatch.wiring.outside import Outside

GAUGES_ALLOWANCE = timedelta(minutes=5)  # a look asks every Horizon once, and the database
DISPATCH_ALLOWANCE = timedelta(minutes=2)  # a round is a claim: seconds, even on a slow database
STREAM_COST = 900  # requests an hour: what Horizon counts for it, and the pages that confirm it
LEASE = timedelta(seconds=30)  # twice an attempt's deadline; what a killed dispatcher holds up


@dataclass(frozen=True)
class House:
    """All parts of one process, on one database and one network.

    Attributes:
        on_told: wakes the dispatcher of this process, if there is one.
        outside: its clocks and its dice.
    """

    settings: Settings
    engine: AsyncEngine
    source: HorizonPool
    metrics: Metrics
    vault: Vault
    election: Election
    outside: Outside = field(default_factory=Outside)
    progress: Progress = field(default_factory=Progress)
    streams: Streams = field(default_factory=Streams)
    lulls: Lulls = field(default_factory=Lulls)
    on_told: Callable[[], None] = lambda: None

    @property
    def clock(self) -> Callable[[], datetime]:
        """The wall clock."""
        return self.outside.clock

    @property
    def rng(self) -> Random:
        """The dice."""
        return self.outside.rng

    @property
    def policy(self) -> Policy:
        """Where webhooks may go."""
        return Policy(allow_private=self.settings.allow_private_webhooks)

    @property
    def settler(self) -> Settler:
        """The one settling."""
        return Settler(self.engine, self.metrics, self.clock, self.rng, self.on_told, self.lulls)

    @property
    def letters(self) -> Letters:
        """What was delivered and what was not."""
        return Letters(self.engine, self.clock)

    @property
    def checkout(self) -> Checkout:
        """Merchants and sessions."""
        return Checkout(
            engine=self.engine,
            clock=self.clock,
            token_bytes=self.outside.token_bytes,
            new_secret=partial(generate_secret, self.outside.token_bytes),
            check_url=lambda url: check_url(url, self.policy),
            vault=self.vault,
            source=self.source,
        )

    @property
    def announcements(self) -> Announcements:
        """What payers announce."""
        return Announcements(
            Tracer(self.engine, self.settler, self.source, self.clock, self.rng, "announce")
        )

    @property
    def held(self) -> HeldCredits:
        """The credits that wait for a merchant's word."""
        return HeldCredits(self.engine, self.source, self.clock, self.rng)

    def backfill(self, source: PageSource | None = None) -> Backfill:
        """Backfills; `source` may stand before the polite one, to see what is read."""
        return Backfill(self.engine, self.settler, source or self.polite, self.clock, self.rng)

    @property
    def polite(self) -> HorizonPool:
        """Horizon for work that can wait: the live streams go first."""
        return self.source.polite()

    @property
    def recovery(self) -> Recovery:
        """The repairs."""
        timing = recover.Timing(
            interval_s=self.settings.recover_interval,
            processing_s=self.settings.processing_timeout,
        )
        return Recovery(
            self.engine, self.settler, self.polite, self.clock, self.rng, self.metrics, timing
        )

    def auditor(self, source: AuditSource | None = None) -> Auditor:
        """Audits; `source` as of `backfill`."""
        timing = audit.Timing(self.settings.audit_interval, self.settings.audit_window)
        return Auditor(
            self.engine,
            self.settler,
            source or self.polite,
            self.clock,
            self.rng,
            self.metrics,
            timing,
        )

    @property
    def listener(self) -> Listener:
        """The live streams."""
        follower = Follower(
            self.engine,
            self.election,
            self.settler,
            self.clock,
            self.rng,
            self.metrics,
            self.progress,
            streams=self.streams,
        )
        network = NetworkReader(follower, self.source, self.backfill())
        within_budget = self.settings.horizon_hourly_requests // STREAM_COST
        most_streams = {"auto": within_budget, "account": None, "network": 0}
        mode = self.settings.listen_mode
        return Listener(follower, self.source, network, most_streams[mode])

    @property
    def histories(self) -> Histories:
        """The landmark of this history, and the word that another has begun."""
        return Histories(self.engine, self.source, self.clock, self.rng)

    @property
    def gaps(self) -> Gaps:
        """What is missing of a stream, and the word that it is given up."""
        return Gaps(self.engine, self.source, self.clock, self.rng)

    def dispatcher(self, sender: Sender) -> Dispatcher:
        """The deliveries, by an open sender."""
        limits = dispatch.Limits(
            in_flight=self.settings.dispatch_in_flight,
            per_endpoint=self.settings.dispatch_per_endpoint,
            lease=LEASE,
        )
        self.progress.watch("dispatch", DISPATCH_ALLOWANCE, self.clock())
        return Dispatcher(
            engine=self.engine,
            sender=sender,
            vault=self.vault,
            sign=sign,
            metrics=self.metrics,
            clock=self.clock,
            rng=self.rng,
            limits=limits,
            beat=lambda: self.progress.beat("dispatch", self.clock()),
        )

    def gauges(self, *, upstream: bool) -> Gauges:
        """The gauges, with those of Horizon and its watchdog if a role needs it."""
        watchdog = Watchdog(self.streams, self.metrics, self.clock)
        source = self.source if upstream else None
        self.progress.watch("gauges", GAUGES_ALLOWANCE, self.clock())
        return Gauges(
            self.engine,
            source,
            self.metrics,
            self.clock,
            watchdog,
            beat=lambda: self.progress.beat("gauges", self.clock()),
        )


@asynccontextmanager
async def furnish(
    settings: Settings, engine: AsyncEngine, outside: Outside | None = None
) -> AsyncIterator[House]:
    """Build the parts on an open database, and close what they opened.

    Raises:
        ConfigError: the key that encrypts webhook secrets cannot be had.
    """
    outside = outside or Outside()
    vault = Vault(ensure_secret_key(settings), outside.token_bytes)
    metrics = Metrics()
    progress = Progress()
    election = Election(create_lock_engine(engine), outside.clock, outside.rng, progress)
    history = partial(present_history, engine)
    lulls = Lulls()
    async with open_pool(settings, metrics, history, outside, lulls.wait) as source:
        yield House(
            settings, engine, source, metrics, vault, election, outside, progress, lulls=lulls
        )

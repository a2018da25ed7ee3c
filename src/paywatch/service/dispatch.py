"""Dispatch: claim due deliveries, POST them with no transaction open, record what came of it.

    claim ──lease──▶ attempt ──answer──▶ judge ──verdict──▶ record
    (short tx)       (no tx)             (pure)             (short tx, fenced by the lease)

`run` keeps hundreds of attempts in flight on one loop; `run_once` does one round of the same. Under
load both transactions are about many deliveries: what has ended is recorded when it is a quarter
of what is in flight, and the slots that become free by that are claimed for at once. A single
delivery waits for nobody.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Final, Protocol
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from paywatch.domain.delivery import Answer, Failure, judge
from paywatch.errors import DatabaseAway, SealError
from paywatch.service.attempts import Dispatched, Recorder
from paywatch.store import outbox
from paywatch.store.outbox import Attempt, Claimed, Room
from paywatch.store.retry import in_transaction
from paywatch.telemetry import Metrics, bound

log = structlog.stdlib.get_logger(__name__)

GATHERED: Final = 4  # one of so many in flight: when what has ended is recorded together


class Sender(Protocol):
    """Makes one bounded POST; trouble is an answer, never an exception."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """POST `body` once."""
        ...


class Vault(Protocol):
    """Opens the secrets of endpoints."""

    def open(self, sealed: bytes, endpoint_id: UUID) -> str:
        """The secret; raises SealError."""
        ...


class Sign(Protocol):
    """Makes the headers by which the merchant verifies an attempt."""

    def __call__(
        self, secrets: Sequence[str], event_id: str, sent_at: datetime, body: bytes, /
    ) -> Mapping[str, str]:
        """The headers."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one dispatcher.

    Args:
        in_flight: attempts at once.
        per_endpoint: attempts at once at one endpoint: what it can hold up if it hangs.
        lease: how long a claim lasts; an attempt ends well before (15 s).
        poll_s: how long an idle dispatcher sleeps if nobody wakes it.
        gather_s: how long an attempt that has ended waits for others to be recorded with.
    """

    in_flight: int = 512
    per_endpoint: int = 32
    lease: timedelta = timedelta(seconds=60)
    poll_s: float = 0.5
    gather_s: float = 0.02


@dataclass
class Dispatcher:
    """Delivers what the outbox holds; any number of them share the work.

    Attributes:
        clock: the wall clock.
        rng: spreads retries and makes lease tokens.
        beat: called after each round of the loop that got somewhere, and before each wait for a
            database that is away: that is no hanging loop.
    """

    engine: AsyncEngine
    sender: Sender
    vault: Vault
    sign: Sign
    metrics: Metrics
    clock: Callable[[], datetime]
    rng: Random
    limits: Limits = field(default_factory=Limits)
    beat: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        # Row locks and the token fence decide here; SERIALIZABLE would only add retries. A claim is
        # one statement: BEGIN and COMMIT would be two more round trips before each webhook.
        self._claiming = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        recording = self.engine.execution_options(isolation_level="READ COMMITTED")
        self._recorder = Recorder(recording, self.metrics, self.clock, self.rng)
        self._in_flight = 0  # claimed, and not recorded yet
        self._made: list[Attempt] = []
        self._slots_used_up = False  # by the last claim
        self._used_up: set[UUID] = set()  # endpoints that had no place left; more may be due there
        self._gathered = asyncio.Event()
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """There may be something due: do not wait for the next poll."""
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until `stop` is set, then finish the attempts in flight.

        One that a database that is away cannot record then is made again after its lease.
        """
        async with asyncio.TaskGroup() as tasks:
            ended = asyncio.Event()  # later than `stop`: a claim under way still brings attempts
            tasks.create_task(self._keep_recording(stop, ended))
            async with asyncio.TaskGroup() as attempts:
                while not stop.is_set():
                    self._wake.clear()
                    for claimed in await self._claim(stop):
                        attempts.create_task(self._deliver(claimed))
                    self.beat()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._wake.wait(), self.limits.poll_s)
            ended.set()
            self._gathered.set()

    async def run_once(self) -> Dispatched:
        """Claim what is due, make all these attempts at once, record them."""
        claimed = await self._claim()
        made = await asyncio.gather(*(self._attempt(one) for one in claimed))
        self._in_flight -= len(made)
        return await self._recorder.record(made)

    async def _claim(self, stop: asyncio.Event | None = None) -> list[Claimed]:
        room = Room(self.limits.in_flight - self._in_flight, self.limits.per_endpoint)
        self._slots_used_up = room.slots <= 0
        if self._slots_used_up:
            return []

        async def lease(conn: AsyncConnection) -> list[Claimed]:
            # A fresh token each time: a claim that was not answered just runs out.
            token = UUID(int=self.rng.getrandbits(128), version=4)
            return await outbox.claim(conn, room, token, self.clock(), self.limits.lease)

        try:
            claimed = await in_transaction(
                self._claiming, lease, rng=self.rng, on_retry=lambda _: self.beat(), stop=stop
            )
        except DatabaseAway:
            return []
        self._in_flight += len(claimed)
        self._slots_used_up = len(claimed) >= room.slots
        self._used_up |= room.used_up_by(claimed)
        return claimed

    async def _deliver(self, claimed: Claimed) -> None:
        """Make the attempt, and leave it to be recorded with others that end soon."""
        attempt = await self._attempt(claimed)
        if not self._made:
            asyncio.get_running_loop().call_later(self.limits.gather_s, self._gathered.set)
        self._made.append(attempt)
        if len(self._made) * GATHERED >= self._in_flight:
            self._gathered.set()

    async def _keep_recording(self, stop: asyncio.Event, ended: asyncio.Event) -> None:
        """Record what was gathered, until all attempts have ended and nothing is left of them."""
        while self._made or not ended.is_set():
            await self._gathered.wait()
            self._gathered.clear()
            made, self._made = self._made, []
            try:
                await self._recorder.record(made, stop)
            except DatabaseAway:
                log.warning("attempts_not_recorded", attempts=len(made))
            self._in_flight -= len(made)
            free = self._used_up & {attempt.claimed.endpoint_id for attempt in made}
            self._used_up -= free  # until a claim takes the last place again
            if free or self._slots_used_up:
                self.wake()

    async def _attempt(self, claimed: Claimed) -> Attempt:
        started_at = self.clock()
        with bound(
            session_id=claimed.session_id,
            operation_id=claimed.operation_id,
            event_id=claimed.event_id,
        ):
            answer = await self._post(claimed, started_at)
        verdict = judge(answer, claimed.attempt, self.clock(), self.rng)
        return Attempt(claimed, started_at, answer, verdict)

    async def _post(self, claimed: Claimed, sent_at: datetime) -> Answer:
        try:
            secret = self.vault.open(claimed.sealed_secret, claimed.endpoint_id)
        except SealError as error:
            return Answer(failure=Failure.SEALED, detail=str(error))
        headers = self.sign([secret], str(claimed.event_id), sent_at, claimed.payload)
        return await self.sender.post(claimed.url, headers, claimed.payload)

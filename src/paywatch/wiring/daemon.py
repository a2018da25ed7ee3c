"""The daemon: the chosen roles in one process, from the first check to the last batch."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import structlog

from paywatch.config import Settings
from paywatch.errors import CursorMoved, HorizonError, HorizonUnavailable, PaywatchError
from paywatch.service.gauges import Gauges
from paywatch.service.waiting import unless, wait_for
from paywatch.service.watchdog import NothingHelps
from paywatch.telemetry import Notifier, keep_watchdog_fed
from paywatch.web import create_app, listen_on, serve, url_of
from paywatch.webhooks.sender import Sender
from paywatch.wiring.database import open_database, require_sessions
from paywatch.wiring.health import Health
from paywatch.wiring.house import House, furnish

NETWORK_RETRY_S: Final = 5.0
FIRST_LOOK_S: Final = 5.0  # Horizon may take so long before the daemon starts without its answer
BACKFILL_RETRY_S: Final = 30.0
ENDING_S: Final = 30.0  # what hangs may not let itself be canceled; a death loses nothing

log = structlog.stdlib.get_logger(__name__)
Run = Callable[[], Awaitable[None]]


class Role(StrEnum):
    """What a process does; health and metrics are served by every one."""

    LISTEN = "listen"  # follows the ledger and settles
    DISPATCH = "dispatch"  # delivers webhooks
    RECOVER = "recover"  # repairs, expires and audits
    SERVE = "serve"  # HTTP


_NEED_SESSIONS: Final = frozenset({Role.LISTEN, Role.RECOVER})
_NEED_HORIZON: Final = frozenset({Role.LISTEN, Role.RECOVER})


class RoleEnded(PaywatchError):
    """A role ended although nobody stopped the daemon."""


async def run_daemon(settings: Settings, roles: Collection[Role], stop: asyncio.Event) -> None:
    """Run roles until `stop` is set; then finish the batch and the attempts in flight.

    Raises:
        PaywatchError: it cannot start; the message has the remedy.
        ExceptionGroup: a role crashed; what it was is logged.
    """
    with contextlib.closing(listen_on(settings.http_host, settings.http_port)) as listening:
        async with AsyncExitStack() as stack:
            database = await stack.enter_async_context(open_database(settings))
            if settings.database_url is not None and _NEED_SESSIONS & set(roles):
                await require_sessions(database.engine)
            house = await stack.enter_async_context(furnish(settings, database.engine))
            daemon = _Daemon(house, frozenset(roles), stop)
            if Role.DISPATCH in roles:
                sender = await stack.enter_async_context(Sender(house.policy))
                daemon = daemon.with_dispatcher(sender)
            await daemon.run(listening)


@dataclass(frozen=True)
class _Daemon:
    """One run."""

    house: House
    roles: frozenset[Role]
    stop: asyncio.Event
    dispatch: Run | None = None

    def with_dispatcher(self, sender: Sender) -> "_Daemon":
        """Whoever enqueues an event in this process wakes this dispatcher."""
        dispatcher = self.house.dispatcher(sender)
        house = replace(self.house, on_told=dispatcher.wake)
        return replace(self, house=house, dispatch=lambda: dispatcher.run(self.stop))

    @property
    def needs_horizon(self) -> bool:
        return bool(self.roles & _NEED_HORIZON)

    async def run(self, listening: socket.socket) -> None:
        if self.needs_horizon:
            await self._look_at_network()
        notifier = Notifier.from_environ(os.environ)
        async with self._services(listening, notifier):
            names = ", ".join(sorted(self.roles))
            log.info("started", url=url_of(listening), roles=names, pid=os.getpid())
            notifier.ready(f"{names}; {url_of(listening)}")
            async with asyncio.TaskGroup() as loops:
                loops.create_task(self._announce_stop(notifier))
                if self.dispatch is not None:
                    loops.create_task(self._keep("dispatch", self.dispatch))
                if self.needs_horizon:
                    loops.create_task(self._read_ledger())
        log.info("stopped")

    async def _look_at_network(self) -> None:
        """Refuse another network at once; a Horizon that does not answer is waited for later."""
        try:
            async with asyncio.timeout(FIRST_LOOK_S):
                await self.house.source.check_network()
        except (HorizonUnavailable, TimeoutError) as error:
            log.warning("horizon_unreachable", error=str(error) or "no answer in time")

    @asynccontextmanager
    async def _services(self, listening: socket.socket, notifier: Notifier) -> AsyncIterator[None]:
        """What runs around the roles, and longer than they do."""
        gauges = self.house.gauges(upstream=self.needs_horizon)
        health = Health(self.house, gauges, self.needs_horizon, Role.LISTEN in self.roles)
        app = create_app(health, self.house.metrics)
        ended = asyncio.Event()
        async with asyncio.TaskGroup() as services:
            services.create_task(serve(app, listening, ended), name="http")
            services.create_task(self._crash_loudly("gauges", lambda: _watch(gauges, ended)))
            watchdog = services.create_task(
                keep_watchdog_fed(notifier, self.house.progress, self.house.clock)
            )
            try:
                yield
            finally:
                ended.set()
                watchdog.cancel()

    async def _announce_stop(self, notifier: Notifier) -> None:
        await self.stop.wait()
        log.info("stopping")
        notifier.stopping()

    async def _read_ledger(self) -> None:
        """Run the roles that read Horizon, once it has proved to be the right one."""
        await self._crash_loudly("network", self._reach_network)
        if self.stop.is_set():
            return
        house, stop = self.house, self.stop
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._crash_loudly("backfill", self._resume_backfills))
            keep_landmark = house.histories.run
            loops.create_task(self._crash_loudly("landmark", lambda: keep_landmark(stop)))
            if Role.LISTEN in self.roles:
                loops.create_task(self._keep("listen", lambda: house.listener.run(stop)))
            if Role.RECOVER in self.roles:
                recover = self.house.recovery
                loops.create_task(self._keep("recover", lambda: recover.run(stop, house.progress)))
            if Role.RECOVER in self.roles and house.settings.audit_interval:
                auditor = house.auditor()
                loops.create_task(self._keep("audit", lambda: auditor.run(stop, house.progress)))

    async def _reach_network(self) -> None:
        while not self.stop.is_set():
            try:
                await self.house.source.check_network()
            except HorizonUnavailable as error:
                log.warning("horizon_unreachable", error=str(error), retry_s=NETWORK_RETRY_S)
                await wait_for(self.stop, NETWORK_RETRY_S)
            else:
                log.info("network_reached", horizon=self.house.source.current.name)
                return

    async def _resume_backfills(self) -> None:
        """Finish what an earlier process began; at a stop it is cut off, and resumed again."""
        while not self.stop.is_set():
            try:
                await unless(self.stop, self.house.backfill().resume_all())
            except HorizonUnavailable as error:
                log.warning("backfill_waits", error=str(error))
                await wait_for(self.stop, BACKFILL_RETRY_S)
            except (CursorMoved, HorizonError) as error:
                # Another process has it; or going on would lose money, and an operator must say.
                log.warning("backfill_stopped", why=str(error))
                return
            else:
                return

    async def _keep(self, role: str, run: Run) -> None:
        """Run a role; one that ends by itself must not be silent: the process ends with it."""
        await self._crash_loudly(role, run)
        if not self.stop.is_set():
            raise RoleEnded(f"the role {role} ended although nobody stopped the daemon")

    async def _crash_loudly(self, role: str, run: Run) -> None:
        try:
            await run()
        except PaywatchError as error:
            log.error("role_stopped", role=role, error=str(error))  # noqa: TRY400 # no bug of ours to trace
            raise
        except Exception:
            log.exception("role_crashed", role=role)
            raise


async def _watch(gauges: Gauges, ended: asyncio.Event) -> None:
    """Keep the gauges; where the watchdog gives up, let nothing keep this process from its end."""
    try:
        await gauges.run(ended)
    except NothingHelps:
        asyncio.get_running_loop().call_later(ENDING_S, os._exit, 1)
        raise

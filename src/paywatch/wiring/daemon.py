"""The daemon: the chosen roles in one process, from the first check to the last batch."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from paywatch.config import Settings
from paywatch.errors import HorizonUnavailable
from paywatch.service.gauges import Gauges
from paywatch.service.watchdog import NothingHelps
from paywatch.telemetry import Notifier, keep_watchdog_fed
from paywatch.web import create_app, listen_on, serve, url_of
from paywatch.webhooks.sender import Sender
from paywatch.wiring.database import open_database, require_sessions
from paywatch.wiring.health import Health
from paywatch.wiring.house import House, furnish
from paywatch.wiring.roles import Role, Roles, crash_loudly

FIRST_LOOK_S: Final = 5.0  # Horizon may take so long before the daemon starts without its answer
ENDING_S: Final = 30.0  # what hangs may not let itself be canceled; a death loses nothing

log = structlog.stdlib.get_logger(__name__)


_NEED_SESSIONS: Final = frozenset({Role.LISTEN, Role.RECOVER})


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
            sender = None
            if Role.DISPATCH in roles:
                sender = await stack.enter_async_context(Sender(house.policy))
            await _Daemon(house, Roles(house, frozenset(roles), stop, sender)).run(listening)


@dataclass(frozen=True)
class _Daemon:
    """One run."""

    house: House
    roles: Roles

    async def run(self, listening: socket.socket) -> None:
        if self.roles.need_horizon:
            await self._look_at_network()
        notifier = Notifier.from_environ(os.environ)
        async with self._services(listening, notifier):
            names = ", ".join(sorted(self.roles.chosen))
            log.info("started", url=url_of(listening), roles=names, pid=os.getpid())
            notifier.ready(f"{names}; {url_of(listening)}")
            async with asyncio.TaskGroup() as loops:
                loops.create_task(self._announce_stop(notifier))
                loops.create_task(self.roles.run())
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
        gauges = self.house.gauges(upstream=self.roles.need_horizon)
        health = Health(
            self.house, gauges, self.roles.need_horizon, Role.LISTEN in self.roles.chosen
        )
        app = create_app(health, self.house.metrics)
        ended = asyncio.Event()
        async with asyncio.TaskGroup() as services:
            services.create_task(serve(app, listening, ended), name="http")
            services.create_task(crash_loudly("gauges", lambda: _watch(gauges, ended)))
            watchdog = services.create_task(
                keep_watchdog_fed(notifier, self.house.progress, self.house.clock)
            )
            try:
                yield
            finally:
                ended.set()
                watchdog.cancel()

    async def _announce_stop(self, notifier: Notifier) -> None:
        await self.roles.stop.wait()
        log.info("stopping")
        notifier.stopping()


async def _watch(gauges: Gauges, ended: asyncio.Event) -> None:
    """Keep the gauges; where the watchdog gives up, let nothing keep this process from its end."""
    try:
        await gauges.run(ended)
    except NothingHelps:
        asyncio.get_running_loop().call_later(ENDING_S, os._exit, 1)
        raise

"""The roles of one process: what runs side by side until it is stopped."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import structlog

from paywatch.errors import CursorMoved, HorizonError, HorizonUnavailable, PaywatchError
from paywatch.service.waiting import unless, wait_for
from paywatch.webhooks.sender import Sender
from paywatch.wiring.house import House

NETWORK_RETRY_S: Final = 5.0
BACKFILL_RETRY_S: Final = 30.0

log = structlog.stdlib.get_logger(__name__)
Run = Callable[[], Awaitable[None]]


class Role(StrEnum):
    """What a process does; health and metrics are served by every one."""

    LISTEN = "listen"  # follows the ledger and settles
    DISPATCH = "dispatch"  # delivers webhooks
    RECOVER = "recover"  # repairs, expires and audits
    SERVE = "serve"  # HTTP


_NEED_HORIZON: Final = frozenset({Role.LISTEN, Role.RECOVER})


class RoleEnded(PaywatchError):
    """A role ended although nobody stopped the daemon."""


@dataclass(frozen=True)
class Roles:
    """The chosen roles, on the parts of one process.

    Attributes:
        sender: posts the webhooks; only the role `dispatch` needs one.
    """

    house: House
    chosen: Collection[Role]
    stop: asyncio.Event
    sender: Sender | None = None

    @property
    def need_horizon(self) -> bool:
        """Whether one of them reads the ledger."""
        return bool(_NEED_HORIZON & set(self.chosen))

    async def run(self) -> None:
        """Run until `stop` is set; then finish the batch and the attempts in flight.

        Raises:
            ExceptionGroup: a role crashed, or ended by itself; what it was is logged.
        """
        async with asyncio.TaskGroup() as loops:
            house = self.house
            if self.sender is not None and Role.DISPATCH in self.chosen:
                dispatcher = house.dispatcher(self.sender)
                # Whoever enqueues an event in this process wakes this dispatcher.
                house = replace(house, on_told=dispatcher.wake)
                loops.create_task(self._keep("dispatch", lambda: dispatcher.run(self.stop)))
            if self.need_horizon:
                loops.create_task(self._read_ledger(house))

    async def _read_ledger(self, house: House) -> None:
        """Run the roles that read Horizon, once it has proved to be the right one."""
        await crash_loudly("network", self._reach_network)
        stop = self.stop
        if stop.is_set():
            return
        async with asyncio.TaskGroup() as loops:
            resume = lambda: self._resume_backfills(house)  # noqa: E731 # as the others
            loops.create_task(crash_loudly("backfill", resume))
            keep_landmark = house.histories.run
            loops.create_task(crash_loudly("landmark", lambda: keep_landmark(stop)))
            if Role.LISTEN in self.chosen:
                loops.create_task(self._keep("listen", lambda: house.listener.run(stop)))
            if Role.RECOVER in self.chosen:
                recover = house.recovery
                loops.create_task(self._keep("recover", lambda: recover.run(stop, house.progress)))
            if Role.RECOVER in self.chosen and house.settings.audit_interval:
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

    async def _resume_backfills(self, house: House) -> None:
        """Finish what an earlier process began; at a stop it is cut off, and resumed again."""
        while not self.stop.is_set():
            try:
                await unless(self.stop, house.backfill().resume_all())
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
        await crash_loudly(role, run)
        if not self.stop.is_set():
            raise RoleEnded(f"the role {role} ended although nobody stopped the daemon")


async def crash_loudly(role: str, run: Run) -> None:
    """Run something, and log what ends it."""
    try:
        await run()
    except PaywatchError as error:
        log.error("role_stopped", role=role, error=str(error))  # noqa: TRY400 # no bug of ours to trace
        raise
    except Exception:
        log.exception("role_crashed", role=role)
        raise

"""Letters: what was delivered and what was not; dead letters sent again by an operator's word."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from paywatch.errors import InvalidInput, NotFound
from paywatch.store import letters

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class Letters:
    """The deliveries of one database."""

    engine: AsyncEngine
    clock: Callable[[], datetime]

    @property
    def _engine(self) -> AsyncEngine:
        """One row each, guarded by its state: as the dispatchers do."""
        return self.engine.execution_options(isolation_level="READ COMMITTED")

    async def read_list(self, state: str, limit: int) -> Sequence[Row[Any]]:
        """Read the deliveries of a state, the latest first."""
        async with self._engine.connect() as conn:
            return await letters.read_list(conn, state, limit)

    async def resend(self, event_id: UUID) -> Row[Any]:
        """Send a dead letter again: the same body and `webhook-id`, by the next attempt.

        Raises:
            NotFound: there is no delivery of that event.
            InvalidInput: it is no dead letter, or its endpoint is disabled.
        """
        async with self._engine.begin() as conn:
            found = await letters.read(conn, event_id)
            if found is None:
                raise NotFound(f"there is no delivery of the event {event_id}")
            if found.state != "dead":
                raise InvalidInput(
                    "event_id", f"is {found.state}: only dead letters are sent again"
                )
            if not await letters.resend(conn, event_id, self.clock()):
                raise InvalidInput(
                    "event_id",
                    f"its endpoint is disabled ({found.disabled_reason}): first"
                    f" `paywatch endpoint enable {found.merchant_id}`",
                )
            resent = await letters.read(conn, event_id)
        assert resent is not None  # noqa: S101 # deliveries are never deleted
        log.warning("delivery_resent", event_id=str(event_id), attempts=resent.attempts_made)
        return resent

    async def enable_endpoint(self, merchant_id: UUID) -> Row[Any]:
        """Enable a merchant's endpoint; dead letters stay until they are sent again.

        Raises:
            NotFound: the merchant has none.
        """
        async with self._engine.begin() as conn:
            enabled = await letters.enable(conn, merchant_id)
        if enabled is None:
            raise NotFound(f"there is no endpoint of a merchant {merchant_id}")
        log.warning("endpoint_enabled", endpoint_id=str(enabled.id), was=enabled.disabled_reason)
        return enabled

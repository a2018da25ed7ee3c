"""What health and readiness ask of the running daemon."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paywatch.errors import MigrationError
from paywatch.service.gauges import Gauges
from paywatch.store.checkup import read_server
from paywatch.store.migrate import require_current
from paywatch.store.retry import DATABASE_ERRORS
from paywatch.web.health import Check, Finding, judge_listen, judge_upstream
from paywatch.wiring.house import House


@dataclass(frozen=True)
class Health:
    """The state of one daemon's parts.

    Attributes:
        upstream: whether a role needs Horizon.
        listening: whether this process follows the streams.
    """

    house: House
    gauges: Gauges
    upstream: bool
    listening: bool

    def stalled(self) -> Sequence[str]:
        """Name the loops that make no progress."""
        return self.house.progress.stale(self.house.clock())

    def checks(self) -> Mapping[str, Check]:
        """Give the parts that this daemon's roles need."""
        checks: dict[str, Check] = {"database": self.database, "migrations": self.migrations}
        if self.upstream:
            checks["upstream"] = self.horizon
        if self.listening:
            checks["listen"] = self.listen
        return checks

    async def database(self) -> Finding:
        """Whether PostgreSQL answers."""
        try:
            async with self.house.engine.connect() as conn:
                await read_server(conn)
        except DATABASE_ERRORS as error:
            return Finding(
                ready=False,
                state="unreachable",
                message=f"the database does not answer ({type(error).__name__}): start it, or"
                " correct PAYWATCH_DATABASE_URL; nothing is lost meanwhile",
            )
        return Finding(ready=True, state="ok", message="the database answers")

    async def migrations(self) -> Finding:
        """Whether the schema is the program's."""
        try:
            async with self.house.engine.connect() as conn:
                await conn.run_sync(require_current)
        except MigrationError as error:
            return Finding(ready=False, state="pending", message=str(error))
        except DATABASE_ERRORS:
            return Finding(ready=False, state="unknown", message="the database does not answer")
        return Finding(ready=True, state="ok", message="the schema is the program's")

    async def horizon(self) -> Finding:
        """Whether Horizon keeps up with the network."""
        return judge_upstream(self.gauges.tip_closed_at, self.house.clock())

    async def listen(self) -> Finding:
        """Whether we keep up with Horizon."""
        streams = self.house.streams
        return judge_listen(self.gauges.lags, streams.shown, streams.stopped)

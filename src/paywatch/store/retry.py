"""Which database errors pass by themselves, which mean bad data, and how to wait in between.

SQLSTATE classes: PostgreSQL, appendix A.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from random import Random
from typing import Final, TypeVar

import structlog
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from paywatch.errors import DatabaseAway

log = structlog.stdlib.get_logger(__name__)

_TRANSIENT: Final = {
    "40001": "serialization_failure",
    "40P01": "deadlock",
    "55P03": "lock_timeout",
    "57014": "statement_timeout",
    "25P03": "idle_in_transaction",
    "53100": "disk_full",
    "53300": "too_many_connections",
}
_TRANSIENT_CLASSES: Final = {"08": "connection", "53": "resources", "57": "shutdown"}
_DATA_CLASSES: Final = frozenset({"22", "23"})  # data exception; integrity constraint violation
FIRST_WAIT_S: Final = 0.05
LONGEST_WAIT_S: Final = 10.0

DATABASE_ERRORS: Final = (DBAPIError, PoolTimeout)
"""What a statement, a COMMIT or a connection from the pool can raise."""


def sqlstate(error: BaseException) -> str | None:
    """Give PostgreSQL's code for an error; None where the connection was lost without one."""
    return getattr(getattr(error, "orig", None), "sqlstate", None)


def transient_reason(error: BaseException) -> str | None:
    """Say in a word why an error will pass by itself; None if it will not."""
    if isinstance(error, PoolTimeout):
        return "pool"
    if not isinstance(error, DBAPIError):
        return None
    state = sqlstate(error)
    if state is None:
        # psycopg raises a lost connection without a code, at COMMIT too.
        lost = error.connection_invalidated or isinstance(error, OperationalError)
        return "connection" if lost else None
    return _TRANSIENT.get(state) or _TRANSIENT_CLASSES.get(state[:2])


def outcome_unknown(error: BaseException) -> bool:
    """Whether the transaction may have been committed although it raised."""
    return transient_reason(error) in {"connection", "shutdown"}


def is_data_error(error: BaseException) -> bool:
    """Whether the rows themselves were refused: trying again would be refused again."""
    return (sqlstate(error) or "")[:2] in _DATA_CLASSES


def wait_before(retry: int, rng: Random) -> float:
    """Give the seconds to wait before the `retry`th try again (from 1): full jitter, capped."""
    return rng.uniform(0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(retry, 30)))


T = TypeVar("T")


async def persistently(
    run: Callable[[], Awaitable[T]],
    *,
    rng: Random,
    on_retry: Callable[[str], None] = lambda _reason: None,
    stop: asyncio.Event | None = None,
) -> T:
    """Run a whole transaction again and again until no transient error stands in its way.

    Unbounded on purpose: while the database is away there is nothing better to do, and giving up
    would lose what the caller holds. Any other error is raised.

    Args:
        run: opens, fills and commits one transaction; must be safe to repeat.
        rng: for the jitter.
        on_retry: told the reason before each wait.
        stop: given by a caller that loses nothing by giving up: once it is set, a try that was
            begun is finished, and none is begun again.

    Raises:
        DatabaseAway: the try failed, and `stop` is set.
    """
    for retry in count(1):
        try:
            return await run()
        except DATABASE_ERRORS as error:
            reason = transient_reason(error)
            if reason is None:
                raise
            log.warning("database_retry", reason=reason, retry=retry, error=type(error).__name__)
            on_retry(reason)
            if await _is_set_within(wait_before(retry, rng), stop):
                raise DatabaseAway from error
    raise AssertionError


async def in_transaction(
    engine: AsyncEngine,
    work: Callable[[AsyncConnection], Awaitable[T]],
    *,
    rng: Random,
    on_retry: Callable[[str], None] = lambda _reason: None,
    stop: asyncio.Event | None = None,
) -> T:
    """Run one transaction of its own until it commits, as `persistently` does.

    Args:
        engine: whose isolation level it has.
        work: fills it; must be safe to repeat.
        rng: for the jitter.
        on_retry: told the reason before each wait.
        stop: as for `persistently`.

    Raises:
        DatabaseAway: the try failed, and `stop` is set.
    """

    async def once() -> T:
        async with engine.begin() as conn:
            return await work(conn)

    return await persistently(once, rng=rng, on_retry=on_retry, stop=stop)


async def _is_set_within(seconds: float, stop: asyncio.Event | None) -> bool:
    """Wait, but no longer than until `stop` is set."""
    if stop is None:
        await asyncio.sleep(seconds)
        return False
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
    return stop.is_set()

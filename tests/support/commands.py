"""Commands in this process, on a thread of their own: quick, and as a shell would see them."""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog
from typer.testing import CliRunner

from paywatch.cli import app
from support.program import Ended


@contextmanager
def restored_logging() -> Iterator[None]:
    """A command sets up the logs of the whole process: put them back."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    try:
        yield
    finally:
        root.handlers, root.level = before
        logging.captureWarnings(capture=False)
        structlog.reset_defaults()


def run_command(environ: Mapping[str, str], *args: str, stdin: bytes | None = None) -> Ended:
    """Run `paywatch …`; an error that it lets through is raised here."""
    with restored_logging():
        result = CliRunner().invoke(app, args, input=stdin, env=dict(environ))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ended(result.exit_code, result.stdout, result.stderr)


async def command(environ: Mapping[str, str], *args: str, stdin: bytes | None = None) -> Ended:
    """The same beside a running event loop, which serves what the command asks."""
    return await asyncio.to_thread(run_command, environ, *args, stdin=stdin)


async def answer(environ: Mapping[str, str], *args: str) -> Any:
    """The JSON document of a command that must succeed."""
    ended = await command(environ, *args, "--json")
    assert ended.code == 0, ended.err
    return ended.document

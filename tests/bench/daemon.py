"""A daemon as an operator would run it, in a process of its own."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from support.site import KEY, environ_of


@contextmanager
def running_daemon(
    url: str, log: Path, *arguments: str, settings: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `paywatch run`; behind the block it is stopped, and must have ended well.

    Args:
        url: of its database.
        log: the file that it writes to, lines as JSON.
        arguments: behind `run`.
        settings: more of them.
    """
    given = {
        "PAYWATCH_DATABASE_URL": url,
        "PAYWATCH_SECRET_KEY": KEY,
        "PAYWATCH_HTTP_PORT": "0",
        "PAYWATCH_ALLOW_PRIVATE_WEBHOOKS": "true",
        "PAYWATCH_LOG_FORMAT": "json",
    }
    environ = environ_of(given | dict(settings or {}))
    command = [sys.executable, "-m", "paywatch", "run", *arguments]
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, env=environ, stderr=stderr) as process,  # noqa: S603 - our own command
    ):
        try:
            yield process
        except BaseException:
            process.kill()
            raise
        process.terminate()
        assert process.wait(60) == 0, log.read_text()[-2000:]

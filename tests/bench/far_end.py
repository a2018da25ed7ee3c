"""The other ends of what is measured: Horizons and a receiver, each in a process of its own.

Such a process prints a line of JSON whenever it has something to say; the first is where it
listens. It is ended when nobody needs it any more.
"""

import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from subprocess import PIPE, Popen
from typing import Any

from aiohttp import web


def say(what: object) -> None:
    """Tell the parent."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def listen(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
    """Answer GET requests on a port of one's own from now on, and say the URL."""
    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    say("http://{}:{}".format(*runner.addresses[0][:2]))


@dataclass(frozen=True, slots=True)
class FarEnd:
    """The process as its parent sees it."""

    process: "Popen[str]"

    def heard(self) -> Any:
        """Wait until it says something; raises ValueError if it has ended instead."""
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, what: object) -> Any:
        """Write it a line, and wait for what it says."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return self.heard()


@contextmanager
def started(module: str, *arguments: object) -> Iterator[FarEnd]:
    """Run `python -m MODULE ARGUMENTS` within the block."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    # Whoever has found this module finds the other one too: pytest sets no PYTHONPATH.
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with Popen(command, stdin=PIPE, stdout=PIPE, text=True, env=env) as process:  # noqa: S603 - our own command
        try:
            yield FarEnd(process)
        finally:
            process.terminate()

"""The daemon as a child process that may be killed at any time."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from paywatch.config import CONFIG_VARIABLE
from paywatch.errors import PaywatchError

STOP_S: Final = 25.0  # what a graceful stop may take: an attempt's 15 s, and some
TAIL: Final = 20  # lines of the log that a failure shows


class DaemonFailed(PaywatchError):
    """The daemon cannot start; the end of its log says why."""


class Child:
    """`paywatch run`, started again whenever it dies.

    Args:
        config: the settings, as a TOML file.
        log: where its log goes.
        tell: told in a sentence what happens to it.
        guard: told the pid of each new process.
    """

    def __init__(
        self, config: Path, log: Path, tell: Callable[[str], None], guard: Callable[[int], None]
    ) -> None:
        self._config = config
        self._log = log
        self._tell = tell
        self._guard = guard
        self._started = asyncio.Event()
        self._stopping = False

    async def run(self) -> None:
        """Keep it running until canceled; then stop it gracefully.

        Raises:
            DaemonFailed: it died before it had started.
        """
        while not self._stopping:
            self._started.clear()
            process = await self._spawn()
            try:
                await self._follow(process)
                code = await process.wait()
            except asyncio.CancelledError:
                await self._stop(process)
                raise
            if not self._started.is_set():
                raise DaemonFailed(f"the daemon ended with {code}:\n{self.tail()}")
            how = f"by signal {-code}" if code < 0 else f"with {code}"
            self._tell(f"daemon {process.pid} died {how}; starting it again")

    async def wait_started(self) -> None:
        """Wait until it has begun its work."""
        await self._started.wait()

    def tail(self) -> str:
        """Give the last lines of its log."""
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return "\n".join(lines[-TAIL:])

    async def _spawn(self) -> asyncio.subprocess.Process:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("PAYWATCH_")}
        environ[CONFIG_VARIABLE] = str(self._config)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "paywatch",
            "run",
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the demo, which then stops it gracefully
        )
        self._guard(process.pid)
        self._tell(f"daemon started: pid {process.pid}")
        return process

    async def _follow(self, process: asyncio.subprocess.Process) -> None:
        """Copy its log until it ends, and notice when it has started."""
        assert process.stderr is not None  # noqa: S101 # a pipe was asked for
        with self._log.open("ab", buffering=0) as log:
            while chunk := await process.stderr.readline():
                log.write(chunk)
                if not self._started.is_set() and _is_start(chunk):
                    self._started.set()

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        self._stopping = True
        _signal(process, signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await self._follow(process)
                await process.wait()
        finally:
            # Too slow, or we are canceled once more: it must not outlive us.
            if process.returncode is None:
                _signal(process, signal.SIGKILL)
                await process.wait()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except ProcessLookupError:
        return


def _is_start(line: bytes) -> bool:
    try:
        return bool(json.loads(line).get("event") == "started")
    except (ValueError, AttributeError):
        return False

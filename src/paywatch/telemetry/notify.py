"""What systemd is told: ready, stopping, a status line, and that the daemon makes progress.

The protocol of sd_notify(3): one datagram of `NAME=value` lines to the socket that
`$NOTIFY_SOCKET` names. Outside systemd there is none, and nothing is sent.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Self

import structlog

from paywatch.telemetry.progress import Progress

_log = structlog.stdlib.get_logger(__name__)


class Notifier:
    """The way to systemd.

    Args:
        address: of the socket; one that begins with `@` is in the abstract namespace.
        watchdog_s: the unit's `WatchdogSec` in seconds, if it has one.
    """

    def __init__(self, address: str | None = None, watchdog_s: float | None = None) -> None:
        self.address = address
        self.watchdog_s = watchdog_s
        self._status = "starting"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], pid: int | None = None) -> Self:
        """As the environment says, `WATCHDOG_PID` being for another process if it is not ours."""
        own = environ.get("WATCHDOG_PID", "") in {"", str(pid or os.getpid())}
        usec = environ.get("WATCHDOG_USEC", "")
        watchdog_s = int(usec) / 1e6 if own and usec.isascii() and usec.isdecimal() else None
        return cls(environ.get("NOTIFY_SOCKET") or None, watchdog_s or None)

    def ready(self, status: str) -> None:
        """Start-up is done: units that wait for this one may start."""
        self._status = " ".join(status.splitlines())
        self._send(f"READY=1\nSTATUS={self._status}")

    def status(self, status: str) -> None:
        """A line for `systemctl status`."""
        self._status = " ".join(status.splitlines())
        self._send(f"STATUS={self._status}")

    def stopping(self) -> None:
        """The graceful stop began."""
        self._send("STOPPING=1\nSTATUS=finishing the batch and the attempts in flight")

    def watchdog(self, stale: list[str]) -> None:
        """Feed the watchdog, but only if no loop is stale: else systemd restarts the daemon."""
        if stale:
            self._send("STATUS=stalled: " + ", ".join(stale))
        else:
            self._send(f"WATCHDOG=1\nSTATUS={self._status}")

    def _send(self, message: str) -> None:
        if self.address is None:
            return
        path = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(message.encode(), path)
        except OSError as error:
            # Not worth stopping for: if it lasts, the watchdog ends this process anyway.
            _log.warning("systemd could not be notified", error=error.strerror)


async def keep_watchdog_fed(
    notifier: Notifier, progress: Progress, clock: Callable[[], datetime]
) -> None:
    """Feed systemd's watchdog at half its time limit, until canceled; at once done without one."""
    while notifier.watchdog_s is not None:
        stale = progress.stale(clock())
        if stale:
            _log.error("loops make no progress, the watchdog is not fed", stale=stale)
        notifier.watchdog(stale)
        await asyncio.sleep(notifier.watchdog_s / 2)

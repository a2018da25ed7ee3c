"""systemd: the datagrams as sd_notify(3) has them, received by a real socket."""

import asyncio
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from paywatch.telemetry import Notifier, Progress, keep_watchdog_fed

START = datetime(2026, 1, 1, tzinfo=UTC)


class Systemd:
    """The receiving end."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)

    def received(self) -> list[str]:
        messages = []
        with suppress(BlockingIOError):
            while True:
                messages.append(self.socket.recv(4096).decode())
        return messages


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    name = f"@paywatch-test-{secrets.token_hex(8)}"
    end = Systemd(str(tmp_path / "notify") if request.param == "path" else name)
    yield end
    end.socket.close()


def test_the_life_of_a_daemon(systemd: Systemd) -> None:
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": systemd.address})
    notifier.ready("2 streams")
    notifier.status("3 streams\nMAINPID=1")
    notifier.watchdog([])
    notifier.stopping()
    assert systemd.received() == [
        "READY=1\nSTATUS=2 streams",
        "STATUS=3 streams MAINPID=1",
        "WATCHDOG=1\nSTATUS=3 streams MAINPID=1",
        "STOPPING=1\nSTATUS=finishing the batch and the attempts in flight",
    ]


def test_the_watchdog_is_not_fed_while_a_loop_is_stale(systemd: Systemd) -> None:
    notifier = Notifier(systemd.address, watchdog_s=30)
    notifier.watchdog(["dispatch", "listen:G1"])
    (message,) = systemd.received()
    assert message == "STATUS=stalled: dispatch, listen:G1"
    assert "WATCHDOG" not in message


async def test_the_loop_feeds_until_a_heart_stops(systemd: Systemd) -> None:
    progress = Progress()
    progress.watch("dispatch", timedelta(seconds=10), START)
    times = iter([START, START + timedelta(seconds=10), START + timedelta(seconds=11)])
    ended = asyncio.Event()

    def clock() -> datetime:
        try:
            return next(times)
        except StopIteration:
            ended.set()
            raise asyncio.CancelledError from None

    with suppress(asyncio.CancelledError):
        await keep_watchdog_fed(Notifier(systemd.address, watchdog_s=0.002), progress, clock)
    assert ended.is_set()
    fed = ["WATCHDOG=1" in message for message in systemd.received()]
    assert fed == [True, True, False]


async def test_without_a_watchdog_there_is_nothing_to_feed() -> None:
    async with asyncio.timeout(5):
        await keep_watchdog_fed(Notifier(), Progress(), lambda: START)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_time_limit_is_read_from_the_environment(
    environ: dict[str, str], expected: float | None
) -> None:
    assert Notifier.from_environ(environ).watchdog_s == expected


def test_outside_systemd_nothing_is_sent() -> None:
    Notifier.from_environ({}).ready("x")


def test_a_socket_that_is_gone_does_not_stop_the_daemon(tmp_path: Path) -> None:
    Notifier(str(tmp_path / "gone")).ready("x")


def test_a_socket_that_is_full_does_not_block_the_event_loop(systemd: Systemd) -> None:
    notifier = Notifier(systemd.address)
    for _ in range(2_000):
        notifier.watchdog([])
    assert 0 < len(systemd.received()) < 2_000

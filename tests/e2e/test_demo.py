"""The demo, as a newcomer runs it: it shows three payments, and leaves nothing behind."""

import asyncio
import os
import re
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.program import processes_of, run_program, running


@pytest.fixture
def environ() -> Iterator[dict[str, str]]:
    """Settings of a user's own must not disturb it; what it makes must go to `TMPDIR`."""
    with tempfile.TemporaryDirectory(prefix="pw-") as directory:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PAYWATCH_")}
        yield clean | {"TMPDIR": directory, "PAYWATCH_HTTP_PORT": "not a port"}


def left_behind(environ: dict[str, str]) -> list[str]:
    """Processes that name the directory, and the files in it."""
    directory = environ["TMPDIR"]
    files = [path.name for path in Path(directory).iterdir()]
    return processes_of(directory) + files


async def test_once_shows_three_sessions_paid_and_told_once(environ: dict[str, str]) -> None:
    ended = await run_program(environ, "demo", "--once")
    assert ended.code == 0, ended.out + ended.err
    rows = [line for line in ended.out.splitlines() if line.rstrip().endswith("verified")]
    ways = [way for way in ("native", "credit asset", "path payment") for row in rows if way in row]
    assert len(rows) == 3
    assert set(ways) == {"native", "credit asset", "path payment"}
    assert all(re.search(r"\b[0-9a-f]{64}\b", row) for row in rows)
    assert "NOT VERIFIED" not in ended.out
    assert left_behind(environ) == []


async def test_once_fails_with_its_reasons_when_its_time_is_up(environ: dict[str, str]) -> None:
    ended = await run_program(environ, "demo", "--once", "--time-limit", "0.1")
    assert ended.code == 1
    assert "Not everything had happened after 0.1 s." in ended.out
    assert "path payment: nobody paid" in ended.out
    assert left_behind(environ) == []


async def test_a_killed_daemon_is_started_again_and_ctrl_c_leaves_nothing(
    environ: dict[str, str],
) -> None:
    # Any port: another demo on this machine may be about to take the usual one.
    async with running(environ, "demo", "--http-port", "0") as demo:
        first = await demo.wait_for(lambda line: "told " in line["text"])
        assert "signature verified" in first["text"]
        started = await demo.wait_for(lambda line: "daemon started" in line["text"])
        pid = int(str(started["text"]).split()[-1])
        os.kill(pid, signal.SIGKILL)
        await demo.wait_for(lambda line: f"daemon {pid} died by signal 9" in line["text"])
        told = sum("told " in line for line in demo.lines)
        last = await demo.wait_for(lambda line: "told " in line["text"], count=told + 2)
        assert "signature verified" in last["text"]
        assert await demo.stop(signal.SIGINT) == 0
    assert left_behind(environ) == []


async def test_a_demo_that_is_killed_leaves_no_daemon_and_no_database(
    environ: dict[str, str],
) -> None:
    async with running(environ, "demo", "--http-port", "0") as demo:
        await demo.wait_for(lambda line: "told " in line["text"])
        assert processes_of(environ["TMPDIR"])
        await demo.kill()
    async with asyncio.timeout(60):
        while left_behind(environ):
            await asyncio.to_thread(os.sched_yield)

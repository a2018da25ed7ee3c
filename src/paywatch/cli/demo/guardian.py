"""What outlives a demo that is killed, and clears up what it left: its daemon, its PostgreSQL.

A process of its own that waits on a pipe. The demo tells it the daemon's pid, and at its ordinary
end that there is nothing to do; if the pipe ends without that, the demo was killed. It runs as a
script, and needs the standard library only.
"""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

PATIENCE_S: Final = 25.0  # what a graceful end may take
DONE: Final = "done"
REMOVE: Final = "remove"


@asynccontextmanager
async def guarded(directory: Path, *, remove: bool) -> AsyncIterator[Callable[[int], None]]:
    """Have what is in `directory` cleared up if this process is killed within the block.

    Gives a function that takes the pid of the daemon, whenever there is a new one.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        __file__,
        str(directory),
        *([REMOVE] if remove else []),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,  # neither Ctrl-C nor the end of the terminal is for it
    )
    pipe = process.stdin
    assert pipe is not None  # noqa: S101 # a pipe was asked for
    try:
        yield lambda pid: pipe.write(f"{pid}\n".encode())
    finally:
        pipe.write(f"{DONE}\n".encode())
        pipe.close()
        await process.wait()


def main(directory: Path, *, remove: bool, told: Iterable[str]) -> None:
    """Wait for the demo's end; clear up if it was not an ordinary one."""
    daemon = None
    for line in told:
        if line.strip() == DONE:
            return
        daemon = int(line)
    if daemon is not None:
        _end(daemon, signal.SIGTERM)
    with suppress(OSError, ValueError):
        postmaster = (directory / "postgres" / "postmaster.pid").read_text().splitlines()[0]
        _end(int(postmaster), signal.SIGINT)  # without waiting for its clients
    if remove:
        shutil.rmtree(directory, ignore_errors=True)


def _end(pid: int, number: signal.Signals) -> None:
    """Ask a process to end, and insist after a while."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            time.sleep(0.05)
            os.kill(pid, 0)
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), remove=REMOVE in sys.argv[2:], told=sys.stdin)

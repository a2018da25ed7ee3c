"""paywatch as a program: commands run to their end, and the daemon as a process to be killed."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paywatch.sim.signals import EventLog

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


async def run_program(environ: Mapping[str, str], *args: str, stdin: bytes = b"") -> Ended:
    """Run `paywatch …` to its end."""
    process = await _spawn(environ, *args)
    out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


@dataclass
class Program:
    """A running `paywatch …`, and what it has said so far, line by line."""

    process: asyncio.subprocess.Process
    log: EventLog[Line] = field(default_factory=EventLog)
    lines: list[str] = field(default_factory=list)
    _readers: list[asyncio.Task[None]] = field(default_factory=list)

    def listen(self) -> None:
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            self._readers.append(asyncio.create_task(self._read(stream)))

    async def _read(self, stream: asyncio.StreamReader) -> None:
        while line := (await stream.readline()).decode():
            self.lines.append(line)
            try:
                said = json.loads(line)
            except ValueError:
                said = {}
            self.log.append({"text": line, **(said if isinstance(said, dict) else {})})

    async def wait_for(
        self, wanted: Callable[[Line], bool], *, count: int = 1, timeout_s: float = 60
    ) -> Line:
        """Wait until it has said something, so many times."""
        try:
            async with asyncio.timeout(timeout_s):
                return (await self.log.wait_for(wanted, count))[-1]
        except TimeoutError:
            raise AssertionError(f"never said:\n{self.said}") from None

    async def event(self, name: str) -> Line:
        """Wait until it has logged an event."""
        return await self.wait_for(lambda line: line.get("event") == name)

    async def url(self) -> str:
        """Where the daemon serves, once it has started."""
        return str((await self.event("started"))["url"])

    @property
    def said(self) -> str:
        """All of it."""
        return "".join(self.lines)

    async def kill(self) -> None:
        """SIGKILL: no chance to clean up."""
        self.process.kill()
        await self.ended()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop, and give its exit code."""
        self.process.send_signal(number)
        return await self.ended()

    async def ended(self, timeout_s: float = 40) -> int:
        """Wait for its end and give the exit code."""
        async with asyncio.timeout(timeout_s):
            code = await self.process.wait()
            await asyncio.gather(*self._readers)
        return code


@asynccontextmanager
async def running(environ: Mapping[str, str], *args: str) -> AsyncIterator[Program]:
    """A program that is killed at the end if it still runs."""
    program = Program(await _spawn(environ, *args))
    program.listen()
    try:
        yield program
    finally:
        if program.process.returncode is None:
            await program.kill()


async def _spawn(environ: Mapping[str, str], *args: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "paywatch",
        *args,
        env=dict(environ),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def processes_of(text: str) -> list[str]:
    """The running processes (of Linux) whose command or settings name a text."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            environ = (process / "environ").read_bytes()
        except OSError:
            continue  # it has ended meanwhile
        settings = [one for one in environ.split(b"\0") if one.startswith(b"PAYWATCH_")]
        if any(text.encode() in part for part in (command, *settings)):
            found.append(command.replace(b"\0", b" ").decode())
    return found

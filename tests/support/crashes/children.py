"""The processes of a nursery, as a trial sees them."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path

from paywatch.sim.signals import Signal
from support.crashes.probe import Plan

LONGEST_S = 60.0  # for anything that a process is waited for


@dataclass
class Child:
    """One process: paywatch with a probe in it.

    Attributes:
        log: where it writes what it says.
        passed: the points that it has passed while it was armed.
        writes: the transactions that have written.
        reached: whether it came to the point of its plan.
        code: its exit code; negative for the signal that killed it; None while it runs.
        repairs_seen: how many it had logged when it was last looked at.
    """

    log: Path
    changed: Signal
    pid: int = 0
    passed: list[str] = field(default_factory=list)
    writes: set[str] = field(default_factory=set)
    armed: bool = False
    reached: bool = False
    stopped: bool = False
    code: int | None = None
    repairs_seen: int = 0

    def take(self, fact: Mapping[str, object]) -> None:
        match fact:
            case {"passed": str(name), "armed": True}:
                self.passed.append(name)
            case {"writes": str(name)}:
                self.writes.add(name)
            case {"ended": int(code)}:
                self.code = code
            case {"reached": _}:
                self.reached = True
            case {"stopped": _}:
                self.stopped = True
            case {"armed": True}:
                self.armed = True
        self.changed.notify()

    async def arm(self) -> None:
        """Let the point of its plan count from now on."""
        os.kill(self.pid, signal.SIGUSR1)
        await self._until(lambda: self.armed)

    async def ended(self) -> int:
        """Wait for its end; gives the exit code."""
        await self._until(lambda: self.code is not None)
        assert self.code is not None
        return self.code

    async def stop(self) -> int:
        """Ask it to stop, and give its exit code."""
        os.kill(self.pid, signal.SIGTERM)
        return await self.ended()

    async def kill(self) -> None:
        """End it at this moment, wherever it is."""
        os.kill(self.pid, signal.SIGKILL)
        await self.ended()

    async def killed_within(self, seconds: float) -> None:
        """Wait for its end so long, then kill it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.changed.wait_for(lambda: self.code is not None)
        if self.code is None:
            await self.kill()

    async def froze(self) -> None:
        """Wait until it has stopped itself, or has ended."""
        await self._until(lambda: self.stopped or self.code is not None)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    async def said(self, event: str) -> None:
        """Wait until it has logged an event; polled, for a file tells nobody."""
        async with asyncio.timeout(LONGEST_S):
            while f'"event": "{event}"' not in self.log.read_text():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def _until(self, so: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(LONGEST_S):
                await self.changed.wait_for(so)
        except TimeoutError:
            raise AssertionError(f"{self}\n{self.log.read_text()[-4000:]}") from None


class Children:
    """Starts processes, and hears of them.

    Args:
        nursery: the process that makes them.
        directory: for their logs.
    """

    def __init__(self, nursery: asyncio.subprocess.Process, directory: Path) -> None:
        self._nursery = nursery
        self._directory = directory
        self._numbers = count(1)
        self._ordered: dict[int, Child] = {}
        self._by_pid: dict[int, Child] = {}

    async def start(self, environ: Mapping[str, str], *args: str, plan: Plan) -> Child:
        """Start `paywatch …`."""
        number = next(self._numbers)
        child = Child(self._directory / f"{number}.log", Signal(), armed=plan.armed)
        child.log.touch()
        self._ordered[number] = child
        order = {"number": number, "args": args, "environ": dict(environ), "plan": asdict(plan),
                 "log": str(child.log)}  # fmt: skip
        assert self._nursery.stdin is not None
        self._nursery.stdin.write(json.dumps(order).encode() + b"\n")
        await child.changed.wait_for(lambda: child.pid)
        return child

    async def listen(self) -> None:
        """Take in what the nursery and its children report, until it ends."""
        assert self._nursery.stdout is not None
        early: dict[int, list[Mapping[str, object]]] = {}
        while line := await self._nursery.stdout.readline():
            fact = json.loads(line)
            pid = fact["pid"]
            if "started" in fact:
                child = self._ordered.pop(fact["started"])
                child.pid = pid
                self._by_pid[pid] = child
                for old in early.pop(pid, []):
                    child.take(old)
                child.changed.notify()
            elif pid in self._by_pid:
                self._by_pid[pid].take(fact)
            else:  # a child may speak before its nursery does
                early.setdefault(pid, []).append(fact)


@asynccontextmanager
async def open_nursery(directory: Path) -> AsyncIterator[Children]:
    """Start a nursery; at the end all of its processes are killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "support.crashes.nursery",
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    children = Children(process, directory)
    listening = asyncio.create_task(children.listen())
    try:
        yield children
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
        await listening

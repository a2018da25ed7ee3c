"""Points of a running paywatch, named by what it does there; at one of them its process ends.

Nothing in paywatch knows of it. A transaction bears the name of the function that opened it, a
statement that of the function that executes it, both found on the stack: a new statement is a new
point by itself. Installed in a process of its own, before paywatch starts there.
"""

import asyncio
import os
import re
import select
import signal
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

import aiohttp
import psycopg
from greenlet import getcurrent  # type: ignore[import-untyped] # it has none
from psycopg import generators
from psycopg._connection_base import BaseConnection
from sqlalchemy import Connection, Engine, event

import paywatch
from paywatch.horizon.transport import HorizonTransport
from paywatch.webhooks.sender import Sender

WRAPPERS: Final = frozenset(
    {"_ask", "_claimed", "_in_transaction", "_with_conn", "in_transaction", "with_conn"}
)
OPENERS: Final = ("service", "web", "wiring", "cli")  # the layers that open transactions
_HOME: Final = str(Path(paywatch.__file__).parent) + os.sep
_WRITES: Final = re.compile(r"\b(INSERT|UPDATE|DELETE|pg_try_advisory_lock)\b")

Report = Callable[[Mapping[str, object]], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a process ends, or is stopped.

    Attributes:
        point: the name; None only names what is passed.
        nth: at which passing, counted from the arming.
        number: SIGKILL or SIGSTOP.
        armed: from the beginning, or when it gets SIGUSR1.
    """

    point: str | None = None
    nth: int = 1
    number: int = signal.SIGKILL
    armed: bool = True


@dataclass
class Tx:
    """A transaction that is open on a connection.

    Attributes:
        first: its first statement, before which psycopg sends BEGIN.
    """

    name: str
    first: str | None = None
    _statements: Counter[str] = field(default_factory=Counter)

    def name_of(self, executor: str) -> str:
        """The point before a statement; of several by one function each has its number."""
        self._statements[executor] += 1
        number = self._statements[executor]
        return f"{self.name}: before {executor}" + (f" #{number}" if number > 1 else "")


class Probe:
    """Watches this process.

    Args:
        plan: where to end it.
        report: told each name when it is passed for the first time, armed or not, and what writes.
    """

    def __init__(self, plan: Plan, report: Report) -> None:
        self._plan = plan
        self._report = report
        self._armed = plan.armed
        self._passed = 0
        self._told: set[tuple[str, object]] = set()
        self._open: dict[object, Tx] = {}

    def install(self) -> None:
        """Watch all engines, all webhooks and all requests to Horizon from now on."""
        signal.signal(signal.SIGUSR1, lambda *_: self.arm())
        event.listen(Engine, "begin", self._begin)
        statements = self._statements(psycopg.AsyncCursor.execute)
        psycopg.AsyncCursor.execute = statements  # type: ignore[method-assign]
        commands = self._commands(BaseConnection._exec_command)
        BaseConnection._exec_command = commands  # type: ignore[method-assign]
        self._watch_posts()
        self._watch_horizon()

    def arm(self) -> None:
        """From now on the point counts."""
        self._armed = True
        self._report({"armed": True})

    def passing(self, name: str) -> None:
        """Pass a point, or end at it."""
        self._tell("passed", name)
        if self._armed and name == self._plan.point:
            self._passed += 1
            if self._passed == self._plan.nth:
                self._report({"reached": name})
                os.kill(os.getpid(), self._plan.number)

    def _tell(self, what: str, name: str) -> None:
        if (name, (what, self._armed)) not in self._told:
            self._told.add((name, (what, self._armed)))
            self._report({what: name, "armed": self._armed})

    def _begin(self, conn: Connection) -> None:
        self._open[conn.connection.driver_connection] = Tx(_opener())

    def _statements(self, original: Any) -> Any:
        """Look at each statement where all of them pass."""

        async def execute(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
            self._statement(cursor.connection, str(query))
            return await original(cursor, query, *args, **kwargs)

        return execute

    def _statement(self, driver: Any, statement: str) -> None:
        tx = self._open.get(driver)
        if tx is None:
            return
        if driver.autocommit:
            tx = Tx(_opener())  # each statement is one of its own
        if _WRITES.search(statement):
            self._tell("writes", tx.name)
        name = tx.name_of(_executor())
        if driver.autocommit or tx.first is not None:
            self.passing(name)
        else:
            self.passing(f"{tx.name}: before BEGIN")
            tx.first = name

    def _commands(self, original: Any) -> Any:
        """Look at BEGIN and COMMIT, which psycopg sends by itself."""

        def exec_command(conn: Any, command: Any, *args: Any) -> Generator[Any, Any, Any]:
            tx = self._open.get(conn)
            if tx is None or not isinstance(command, bytes):
                return (yield from original(conn, command, *args))
            if command == b"COMMIT":
                return (yield from self._commit(conn, tx))
            result = yield from original(conn, command, *args)
            if command.startswith(b"BEGIN") and tx.first is not None:
                self.passing(tx.first)
            return result

        return exec_command

    def _commit(self, conn: Any, tx: Tx) -> Generator[Any, Any, Any]:
        """What psycopg does for COMMIT, with points between its steps."""
        self.passing(f"{tx.name}: before COMMIT")
        conn.pgconn.send_query(b"COMMIT")
        while conn.pgconn.flush():
            select.select([], [conn.pgconn.socket], [])
        self.passing(f"{tx.name}: COMMIT sent")
        if self._plan.point == f"{tx.name}: COMMIT answered, unread":
            select.select([conn.pgconn.socket], [], [])
        self.passing(f"{tx.name}: COMMIT answered, unread")
        results = yield from generators.fetch_many(conn.pgconn)
        if results[-1].status != psycopg.pq.ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(results[-1])
        del self._open[conn]
        self.passing(f"{tx.name}: behind COMMIT")
        return results[-1]

    def _watch_posts(self) -> None:
        post, start = Sender.post, aiohttp.ClientResponse.start
        unread = "post: answered, unread"

        async def posted(sender: Sender, *args: Any) -> Any:
            self.passing("post: before")
            answer = await post(sender, *args)
            self.passing("post: behind")
            return answer

        async def started(response: aiohttp.ClientResponse, connection: Any) -> Any:
            if response.method != "POST":
                return await start(response, connection)
            self.passing("post: being sent")
            if self._plan.point == unread and self._armed:
                await _readable(connection.transport)
            self.passing(unread)
            await start(response, connection)
            self.passing("post: head read")
            return response

        Sender.post = posted  # type: ignore[method-assign,assignment]
        aiohttp.ClientResponse.start = started  # type: ignore[method-assign,assignment]

    def _watch_horizon(self) -> None:
        get, record = HorizonTransport.get, HorizonTransport._record

        async def got(transport: HorizonTransport, *args: Any, **kwargs: Any) -> Any:
            self.passing("horizon: before GET")
            response = await get(transport, *args, **kwargs)
            self.passing("horizon: behind GET")
            return response

        def streamed(transport: HorizonTransport, one: Any) -> Any:
            self.passing("horizon: streamed")
            return record(transport, one)

        HorizonTransport.get = got  # type: ignore[method-assign,assignment]
        HorizonTransport._record = streamed  # type: ignore[method-assign,assignment]


async def _readable(transport: asyncio.Transport) -> None:
    """Wait until the other side has answered, and leave the answer where it is."""
    transport.pause_reading()
    socket = transport.get_extra_info("socket")
    while not select.select([socket], [], [], 0)[0]:  # noqa: ASYNC110 # the loop may not read it
        await asyncio.sleep(0.001)
    transport.resume_reading()


def _opener() -> str:
    """The function that opened a transaction: `settle.settle_and_commit`."""
    for module, frame in _frames():
        named = frame.f_code.co_name not in WRAPPERS and "<" not in frame.f_code.co_qualname
        if named and module[0] in OPENERS:
            return f"{module[-1]}.{frame.f_code.co_name.strip('_')}"
    return "?"


def _executor() -> str:
    """The function that executes a statement: `cursors.advance`."""
    for module, frame in _frames():
        # A comprehension is part of its function, and the way to psycopg of whoever goes it.
        if "<" not in frame.f_code.co_name and module[-1] != "driver":
            return f"{module[-1]}.{frame.f_code.co_name.strip('_')}"
    return "?"


def _frames() -> Iterator[tuple[list[str], FrameType]]:
    """The frames of paywatch on the stack, the innermost first, beyond SQLAlchemy's greenlets."""
    frame: FrameType | None = sys._getframe()
    current = getcurrent()
    while frame is not None:
        if frame.f_code.co_filename.startswith(_HOME):
            yield frame.f_globals["__name__"].split(".")[1:], frame
        frame = frame.f_back
        if frame is None and current.parent is not None:
            current = current.parent
            frame = current.gr_frame

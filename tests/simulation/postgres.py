"""PostgreSQL, one statement at a time: the server is real, its timing and its troubles a seed's.

All that psycopg's asynchronous connections do in a process passes `Gate.wait`. A round trip first
takes a virtual time; then it runs to its end while the loop stands still. So two statements never
race in the server, and which goes first is decided by the virtual clock alone. A statement that
waits for another transaction's lock is found by asking the server; then the others go on, and it is
looked at again whenever a transaction has ended. The server's time limits are kept in virtual time.
"""

import asyncio
import os
import re
import select
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, cast

import psycopg
from psycopg import waiting
from psycopg.pq import TransactionStatus

from paywatch.store import leadership
from simulation.attempt import Attempt, finish
from simulation.process import Process, current
from simulation.steps import Gen, Kind, Step, Trouble, describe, is_local, may_write
from simulation.trace import Trace

_LIMIT: Final = re.compile(r"set_config\('(\w+_timeout)', '(\d+)s'")
_LOST: Final = "consuming input failed: server closed the connection unexpectedly"
_NO_LIMITS: Final = b"".join(
    b"SET %s = 0;" % name
    for name in (
        b"idle_session_timeout",
        b"idle_in_transaction_session_timeout",
        b"lock_timeout",
        b"statement_timeout",
    )
)


_CODES: Final = {Trouble.SERIALIZATION: "40001", Trouble.DEADLOCK: "40P01"}


@dataclass(eq=False)
class _Link:
    """A connection, and what is known of it."""

    conn: psycopg.AsyncConnection[Any]
    process: Process | None
    pid: int
    used_at: float
    wrote: bool = False
    limits: dict[str, float] = field(default_factory=dict)

    @property
    def is_in_transaction(self) -> bool:
        status = self.conn.pgconn.transaction_status
        return status in (TransactionStatus.INTRANS, TransactionStatus.INERROR)


class Gate:
    """The way to PostgreSQL; `installed` puts it before psycopg.

    Args:
        loop: whose time it is.
        monitor: an autocommit connection of our own, to ask the server about the others.
        trace: told every round trip.
        latency_s: draws how long one takes.

    Attributes:
        trouble: says what happens to a step; nothing by default.
        on_commit: called after each COMMIT of a transaction that wrote; a check that fails raises.
        on_deadlock: told the statements that wait for each other in a circle.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        monitor: psycopg.Connection[Any],
        trace: Trace,
        latency_s: Callable[[], float],
    ) -> None:
        self.trouble: Callable[[Step], Trouble | None] = lambda _step: None
        self.on_commit: Callable[[Process], None] = lambda _process: None
        self.on_deadlock: Callable[[str], None] = lambda _what: None
        self._loop = loop
        self._monitor = monitor
        self._trace = trace
        self._latency_s = latency_s
        self._links: dict[int, _Link] = {}  # by backend
        self._blocked: dict[_Link, asyncio.Event] = {}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Within the block every asynchronous connection of this process goes through the gate."""
        connection = cast("Any", psycopg.AsyncConnection)
        waits = cast("Any", waiting)
        before = connection.wait, connection.connect, connection.close, waits.wait_conn_async
        connect, cut_off = connection.connect, leadership._cut_off

        async def connect_now(gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:  # noqa: ASYNC109 # psycopg's signature
            return waiting.wait_conn(gen, interval, timeout)

        async def connect_gated(*args: Any, **kwargs: Any) -> Any:
            return await self._connect(lambda: connect(*args, **kwargs))

        async def close_gated(conn: Any) -> None:
            self._close(conn)

        async def wait_gated(conn: Any, gen: Gen, *_: Any, **__: Any) -> Any:
            return await self._wait(conn, gen)

        connection.wait, connection.connect, connection.close, waits.wait_conn_async = (
            wait_gated,
            connect_gated,
            close_gated,
            connect_now,
        )
        leadership._cut_off = self._cut_off
        try:
            yield
        finally:
            leadership._cut_off = cut_off
            for link in list(self._blocked):
                self._let_go(link)
            connection.wait, connection.connect, connection.close, waits.wait_conn_async = before

    async def reap(self) -> None:
        """Keep the server's limits on idle connections, in virtual time; runs until canceled."""
        while True:
            await asyncio.sleep(0.25)
            now = self._loop.time()
            for link in list(self._links.values()):
                name = "idle_session_timeout"
                if link.is_in_transaction:
                    name = "idle_in_transaction_session_timeout"
                limit = link.limits.get(name)
                if limit is not None and now - link.used_at >= limit and link not in self._blocked:
                    self._note(link, f"server ends it: {name}")
                    self._terminate(link)

    def crash(self, process: Process) -> None:
        """Let the server lose a process: its transactions are rolled back, its locks are free."""
        for link in [link for link in self._links.values() if link.process is process]:
            if link in self._blocked:  # its server process looks at nobody while it waits
                self._let_go(link)
                self._monitor.execute("SELECT pg_terminate_backend(%s)", [link.pid])
            link.conn.pgconn.finish()
            self._gone(link)
        self._released()

    def _cut_off(self, connection: Any) -> None:
        """Do as `leadership._cut_off`, but let the server know at once; the frozen do it later."""
        link = (
            self._links.get(connection.pgconn.backend_pid)
            if connection.pgconn.status == 0
            else None
        )
        if link is None or link.process is None or link.process.is_dead:
            return
        if link.process.frozen_until > self._loop.time():
            self._loop.call_at(link.process.frozen_until, self._cut_off, connection)
            return
        self._note(link, "cuts a silent server off")
        if link in self._blocked:  # its server process looks at nobody while it waits
            self._let_go(link)
            self._terminate(link)
        else:
            self._break(link)

    # a round trip

    async def _connect(self, connect: Callable[[], Any]) -> Any:
        process = current.get()
        if process is not None:
            step = Step(process, Kind.CONNECT, "", wrote=False)
            trouble = await self._turn(step)
            if trouble is Trouble.CRASH_AFTER:
                self._kill(process)
            if trouble is not None:
                raise psycopg.OperationalError("connection failed: connection refused")
        conn = await connect()
        pid = conn.pgconn.backend_pid
        self._links[pid] = _Link(conn, process, pid, self._loop.time())
        return conn

    async def _wait(self, conn: psycopg.AsyncConnection[Any], gen: Gen) -> Any:
        link = self._links.get(conn.pgconn.backend_pid) if conn.pgconn.status == 0 else None
        if link is None or link.process is None:
            return finish(Attempt(conn, gen))
        kind, sql = describe(gen)
        if is_local(gen, is_in_transaction=link.is_in_transaction):
            return finish(Attempt(conn, gen))
        wrote = link.wrote or may_write(sql)
        try:
            step = Step(link.process, kind, sql, wrote, link.is_in_transaction)
            trouble = await self._turn(step)
        except asyncio.CancelledError:
            gen.close()
            raise
        link.used_at = self._loop.time()
        if conn.pgconn.status != 0:
            return finish(Attempt(conn, gen))  # it was lost meanwhile: let psycopg find out
        if kind is Kind.COMMIT and wrote:
            wrote = _has_written(conn)
        return await self._do(link, gen, kind, trouble, wrote=wrote, sql=sql)

    async def _do(
        self, link: _Link, gen: Gen, kind: Kind, trouble: Trouble | None, *, wrote: bool, sql: str
    ) -> Any:
        if trouble is Trouble.LOST_BEFORE:
            self._break(link)
        elif trouble in _CODES and link.is_in_transaction:
            gen.close()
            self._refuse(link, _CODES[trouble], kind)
        result = await self._complete(link, Attempt(link.conn, gen))
        link.used_at = self._loop.time()
        link.wrote = wrote and kind is Kind.STATEMENT and not link.conn.autocommit
        if sql.startswith("SELECT set_config") and (limits := _LIMIT.findall(sql)):
            link.limits = {name: float(value) for name, value in limits}
            link.conn.pgconn.exec_(_NO_LIMITS)
        process = cast("Process", link.process)
        is_committed = kind is Kind.COMMIT or link.conn.autocommit
        if is_committed or kind is Kind.ROLLBACK:
            self._released()
        if is_committed and wrote:
            self._trace.note(process.name, "committed")
            self.on_commit(process)
        if trouble is Trouble.CRASH_AFTER:
            self._kill(process)
        if trouble is Trouble.LOST_AFTER:
            self._break(link)
            link.conn.pgconn.exec_(b"")  # finds out
            raise psycopg.OperationalError(_LOST)
        return result

    async def _turn(self, step: Step) -> Trouble | None:
        """Wait for its time, and draw what happens."""
        process = step.process
        if process.is_dead:
            raise asyncio.CancelledError
        await asyncio.sleep(self._latency_s())
        await asyncio.sleep(max(0.0, process.frozen_until - self._loop.time()))
        if process.is_dead:
            raise asyncio.CancelledError
        trouble = self.trouble(step)
        what = f"{step.kind} {step.sql[:60]}".rstrip()
        self._trace.note(process.name, f"{what} !{trouble}" if trouble else what)
        if trouble is Trouble.CRASH_BEFORE:
            self._kill(process)
        return trouble

    async def _complete(self, link: _Link, attempt: Attempt) -> Any:
        """Run a statement to its end; while it waits for a lock, let the others go on."""
        limit = min(link.limits.get("lock_timeout", 60), link.limits.get("statement_timeout", 60))
        deadline = self._loop.time() + limit
        try:
            while not attempt.advance(lambda: self._waits_for_lock(link)):
                self._note(link, "waits for a lock")
                with self._stopped(link):
                    await self._until_free(link, deadline)
        except TimeoutError:
            self._note(link, "waited too long")
            return self._abandon(link, attempt)
        except asyncio.CancelledError:
            if link.process is None or not link.process.is_dead:
                with _ignored(psycopg.Error):
                    self._abandon(link, attempt)
            raise
        return attempt.result()

    async def _until_free(self, link: _Link, deadline: float) -> None:
        """Wait until no other transaction is in its way; raises TimeoutError at the deadline."""
        async with asyncio.timeout_at(deadline):
            while self._waits_for_lock(link):
                self._blocked[link].clear()
                await self._blocked[link].wait()

    @contextmanager
    def _stopped(self, link: _Link) -> Iterator[None]:
        """Keep a server process that waits from going on by itself when it could.

        Several that a COMMIT sets free would race. It is stopped while it sleeps, so it holds
        nothing that another one needs.
        """
        self._blocked[link] = asyncio.Event()
        os.kill(link.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            self._let_go(link)

    def _let_go(self, link: _Link) -> None:
        if self._blocked.pop(link, None) is not None:
            os.kill(link.pid, signal.SIGCONT)

    def _kill(self, process: Process) -> NoReturn:
        """Kill a process from within: nothing of it goes on.

        Whoever is in the middle of something is cut off there, and does not wait to be: what
        SQLAlchemy does at the end of a connection is shielded, and nobody would cancel it.
        """
        process.on_crash()
        raise asyncio.CancelledError

    # the server

    def _waits_for_lock(self, link: _Link) -> bool:
        row = self._monitor.execute("SELECT pg_blocking_pids(%s)", [link.pid]).fetchone()
        blockers: list[int] = row[0] if row else []
        if blockers:
            self._look_for_circle(link)
        return bool(blockers)

    def _look_for_circle(self, link: _Link) -> None:
        seen: list[int] = []
        queue = [link.pid]
        while queue:
            row = self._monitor.execute("SELECT pg_blocking_pids(%s)", [queue.pop()]).fetchone()
            for pid in row[0] if row else []:
                if pid == link.pid:
                    asked = "SELECT left(query, 200) FROM pg_stat_activity WHERE pid = ANY(%s)"
                    found = self._monitor.execute(asked, [[*seen, link.pid]]).fetchall()
                    self.on_deadlock(" | ".join(" ".join(text.split()) for (text,) in found))
                    return
                if pid not in seen:
                    seen.append(pid)
                    queue.append(pid)

    def _released(self) -> None:
        for event in self._blocked.values():
            event.set()

    def _abandon(self, link: _Link, attempt: Attempt) -> Any:
        """Have the server cancel what it waits with; raises what it says then."""
        self._monitor.execute("SELECT pg_cancel_backend(%s)", [link.pid])
        return finish(attempt)

    def _refuse(self, link: _Link, code: str, kind: Kind) -> None:
        """Have the server fail as it does by itself: the transaction is void."""
        raising = f"DO $$BEGIN RAISE EXCEPTION 'simulated' USING ERRCODE = '{code}'; END$$"
        result = link.conn.pgconn.exec_(raising.encode())
        if kind is Kind.COMMIT:
            link.conn.pgconn.exec_(b"ROLLBACK")
            link.wrote = False
            self._released()
        raise psycopg.errors.lookup(code)(
            f"simulated: {(result.error_message or b'').decode().strip()}"
        )

    def _break(self, link: _Link) -> None:
        """Cut the wire between a connection and its server."""
        with socket.socket(fileno=os.dup(link.conn.pgconn.socket)) as wire:
            wire.shutdown(socket.SHUT_RDWR)
        self._gone(link)
        self._released()

    def _terminate(self, link: _Link) -> None:
        self._monitor.execute("SELECT pg_terminate_backend(%s)", [link.pid])
        self._gone(link)
        self._released()

    def _close(self, conn: psycopg.AsyncConnection[Any]) -> None:
        pid = conn.pgconn.backend_pid if conn.pgconn.status == 0 else None
        conn._closed = True
        conn.pgconn.finish()
        if pid is not None and (link := self._links.get(pid)) is not None:
            self._gone(link)
            self._released()

    def _gone(self, link: _Link) -> None:
        """Wait, in real time, until the server has cleared a connection away."""
        self._links.pop(link.pid, None)
        asked = "SELECT 1 FROM pg_stat_activity WHERE pid = %s"
        while self._monitor.execute(asked, [link.pid]).fetchone() is not None:
            select.select([], [], [], 0.0005)

    def _note(self, link: _Link, what: str) -> None:
        self._trace.note(link.process.name if link.process else "world", what)


def _has_written(conn: psycopg.AsyncConnection[Any]) -> bool:
    """Ask the server whether the open transaction has changed anything."""
    asked = b"SELECT 1 WHERE pg_current_xact_id_if_assigned() IS NOT NULL"
    return conn.pgconn.exec_(asked).ntuples == 1


@contextmanager
def _ignored(*errors: type[BaseException]) -> Iterator[None]:
    try:
        yield
    except errors:
        return

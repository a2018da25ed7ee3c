"""The kernel of the simulation: its clock, its wire, and its way to a real PostgreSQL."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import copy_context
from io import BytesIO
from random import Random
from typing import Any

import aiohttp
import psycopg
import pytest
from aiohttp import web

from simulation.loop import SimulatedLoop, Standstill, run
from simulation.postgres import Gate
from simulation.process import Process, current
from simulation.steps import Kind, Step, Trouble
from simulation.trace import Trace
from simulation.wire import Wire

Main = Callable[[SimulatedLoop], Coroutine[Any, Any, None]]
Connection = psycopg.AsyncConnection[Any]
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def test_a_day_of_waiting_takes_no_time() -> None:
    async def main(loop: SimulatedLoop) -> None:
        began, really = loop.time(), time.monotonic()
        await asyncio.sleep(86_400)
        assert loop.time() - began == pytest.approx(86_400)
        assert time.monotonic() - really < 60  # not the day

    run(main)


def test_whoever_waits_for_next_to_nothing_gets_there() -> None:
    async def main(loop: SimulatedLoop) -> None:
        began = loop.time()
        await asyncio.sleep(1e-14)  # less than one step of the clock's numbers
        assert loop.time() > began

    run(main)


def test_tasks_that_wait_for_each_other_are_found() -> None:
    async def main(_loop: SimulatedLoop) -> None:
        await asyncio.Event().wait()

    with pytest.raises(Standstill, match="nothing will ever happen again"):
        run(main)


@asynccontextmanager
async def server(loop: SimulatedLoop, answer: Answer, largest: int = 1 << 20) -> AsyncIterator[str]:
    loop.wire = Wire(loop, Random(1))
    app = web.Application(client_max_size=largest)
    app.router.add_post("/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}/"
    finally:
        await runner.cleanup()


def test_bytes_arrive_whole_and_in_order_however_they_are_cut() -> None:
    body = Random(7).randbytes(3 << 20)

    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async def main(loop: SimulatedLoop) -> None:
        async with server(loop, echo, 8 << 20) as url, aiohttp.ClientSession() as http:
            for size in (1, 2, 100_000, len(body)):
                async with http.post(url, data=BytesIO(body[:size]), chunked=True) as response:
                    assert await response.read() == body[:size]

    run(main)


def test_what_a_dead_process_posts_reaches_nobody() -> None:
    received: list[bytes] = []

    async def take(request: web.Request) -> web.Response:
        received.append(await request.read())
        return web.Response()

    async def main(loop: SimulatedLoop) -> None:
        process = Process("a")
        async with server(loop, take) as url:

            async def post() -> None:
                async with aiohttp.ClientSession() as http:
                    async with http.post(url, data=b"first"):
                        pass
                    process.is_dead = True
                    loop.wire.cut(process)  # type: ignore[union-attr] # the server has set it
                    with pytest.raises(aiohttp.ClientError):
                        await http.post(url, data=b"second")

            context = copy_context()
            context.run(current.set, process)
            await loop.create_task(post(), context=context)

    run(main)
    assert received == [b"first"]


class Place:
    """A gate before a database with one row, and processes that come to it."""

    def __init__(self, loop: SimulatedLoop, url: str, monitor: psycopg.Connection[Any]) -> None:
        self.loop = loop
        self.url = url
        self.monitor = monitor
        self.trace = Trace(loop.time)
        rng = Random(1)
        self.gate = Gate(loop, monitor, self.trace, lambda: rng.uniform(0.001, 0.003))
        self.commits: list[str] = []
        self.circles: list[str] = []
        self.gate.on_commit = lambda process: self.commits.append(process.name)
        self.gate.on_deadlock = self.circles.append

    def go(
        self, name: str, work: Callable[[Connection], Awaitable[None]]
    ) -> tuple[Process, asyncio.Task[None]]:
        process = Process(name)

        async def live() -> None:
            conn = await psycopg.AsyncConnection.connect(self.url)
            await conn.execute("SELECT set_config('lock_timeout', '5s', false)")
            await conn.commit()
            try:
                await work(conn)
            finally:
                await conn.close()

        context = copy_context()
        context.run(current.set, process)
        task = self.loop.create_task(live(), context=context)

        def die() -> None:
            process.is_dead = True
            self.gate.crash(process)
            task.cancel()

        process.on_crash = die
        return process, task

    def value(self, number: int = 1) -> int:
        row = self.monitor.execute("SELECT v FROM t WHERE n = %s", [number]).fetchone()
        assert row is not None
        return int(row[0])


def at(database_url: str, scene: Callable[[Place], Coroutine[Any, Any, None]]) -> None:
    async def main(loop: SimulatedLoop) -> None:
        with psycopg.connect(database_url, autocommit=True) as monitor:
            monitor.execute("CREATE TABLE t (n int PRIMARY KEY, v int)")
            monitor.execute("INSERT INTO t VALUES (1, 0), (2, 0)")
            place = Place(loop, database_url, monitor)
            with place.gate.installed():
                await scene(place)

    run(main)


async def add(conn: Connection, *numbers: int) -> None:
    for number in numbers:
        await conn.execute("UPDATE t SET v = v + 1 WHERE n = %s", [number])
    await conn.commit()


def test_who_waits_for_a_lock_goes_on_when_it_is_free(database_url: str) -> None:
    async def scene(place: Place) -> None:
        held = asyncio.Event()

        async def hold(conn: Connection) -> None:
            await conn.execute("UPDATE t SET v = v + 1 WHERE n = 1")
            held.set()
            await asyncio.sleep(3)
            await conn.commit()

        async def follow(conn: Connection) -> None:
            await held.wait()
            await add(conn, 1)

        tasks = [place.go("first", hold)[1], place.go("second", follow)[1]]
        await asyncio.gather(*tasks)
        assert place.commits == ["first", "second"]
        assert place.value() == 2
        assert any("second: waits for a lock" in line for line in place.trace.tail)

    at(database_url, scene)


def test_a_lock_is_waited_for_as_long_as_the_limit_says_in_virtual_time(database_url: str) -> None:
    async def scene(place: Place) -> None:
        held = asyncio.Event()

        async def hold(conn: Connection) -> None:
            await conn.execute("UPDATE t SET v = v + 1 WHERE n = 1")
            held.set()
            await asyncio.sleep(60)
            await conn.commit()

        async def follow(conn: Connection) -> None:
            await held.wait()
            await conn.execute("SELECT set_config('enable_seqscan', 'off', true)")  # no limit
            began = place.loop.time()
            with pytest.raises(psycopg.errors.QueryCanceled):
                await add(conn, 1)
            assert place.loop.time() - began == pytest.approx(5, abs=0.1)

        await asyncio.gather(place.go("first", hold)[1], place.go("second", follow)[1])
        assert place.value() == 1

    at(database_url, scene)


def test_a_circle_of_locks_is_told(database_url: str) -> None:
    async def scene(place: Place) -> None:
        both = asyncio.Barrier(2)

        async def take(conn: Connection, *order: int) -> None:
            await conn.execute("UPDATE t SET v = v + 1 WHERE n = %s", [order[0]])
            await both.wait()
            await conn.execute("UPDATE t SET v = v + 1 WHERE n = %s", [order[1]])

        tasks = [
            place.go("first", lambda conn: take(conn, 1, 2))[1],
            place.go("second", lambda conn: take(conn, 2, 1))[1],
        ]
        await asyncio.gather(*tasks, return_exceptions=True)
        assert place.circles
        assert "UPDATE t SET v" in place.circles[0]

    at(database_url, scene)


@pytest.mark.parametrize(
    ("trouble", "error", "left"),
    [
        (Trouble.LOST_BEFORE, psycopg.OperationalError, 0),
        (Trouble.LOST_AFTER, psycopg.OperationalError, 1),
        (Trouble.SERIALIZATION, psycopg.errors.SerializationFailure, 0),
        (Trouble.DEADLOCK, psycopg.errors.DeadlockDetected, 0),
    ],
)
def test_a_commit_that_fails_has_happened_or_not(
    database_url: str, trouble: Trouble, error: type[psycopg.Error], left: int
) -> None:
    def strike(step: Step) -> Trouble | None:
        return trouble if step.kind is Kind.COMMIT and step.wrote else None

    async def scene(place: Place) -> None:
        place.gate.trouble = strike

        async def work(conn: Connection) -> None:
            with pytest.raises(error) as caught:
                await add(conn, 1)
            is_lost = error is psycopg.OperationalError
            assert (caught.value.sqlstate is None) == is_lost
            assert conn.closed == is_lost

        await place.go("a", work)[1]
        assert place.value() == left

    at(database_url, scene)


@pytest.mark.parametrize(("trouble", "left"), [(Trouble.CRASH_BEFORE, 0), (Trouble.CRASH_AFTER, 1)])
def test_of_a_killed_process_only_what_is_committed_stays(
    database_url: str, trouble: Trouble, left: int
) -> None:
    async def scene(place: Place) -> None:
        place.gate.trouble = lambda step: (
            trouble if step.kind is Kind.COMMIT and step.wrote else None
        )
        went_on = False

        async def work(conn: Connection) -> None:
            nonlocal went_on
            try:
                await add(conn, 1)
                went_on = True
            finally:
                with pytest.raises(BaseException):  # noqa: B017, PT011 # whatever it tries, in vain
                    await conn.execute("UPDATE t SET v = 100")

        await asyncio.wait([place.go("a", work)[1]])
        assert not went_on
        assert place.value() == left

    at(database_url, scene)


def test_the_same_seed_is_the_same_run_and_another_is_not(database_url: str) -> None:
    def digest(seed: int) -> str:
        found: list[str] = []

        async def main(loop: SimulatedLoop) -> None:
            with psycopg.connect(database_url, autocommit=True) as monitor:
                monitor.execute("DROP TABLE IF EXISTS t")
                monitor.execute("CREATE TABLE t (n int PRIMARY KEY, v int)")
                monitor.execute("INSERT INTO t VALUES (1, 0), (2, 0)")
                place, rng = Place(loop, database_url, monitor), Random(seed)
                place.gate._latency_s = lambda: rng.uniform(0.001, 0.1)
                with place.gate.installed():
                    works = [place.go(f"p{n}", lambda conn: add(conn, 1, 2))[1] for n in range(5)]
                    await asyncio.gather(*works)
                found.append(place.trace.digest)

        run(main)
        return found[0]

    first = digest(1)
    assert digest(1) == first
    assert digest(2) != first

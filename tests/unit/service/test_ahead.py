"""A live stream that a stop cuts off: nothing is left behind, whatever ends it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from paywatch.domain.ledger import Batch, Position
from paywatch.service.ahead import read_ahead
from paywatch.service.waiting import unless, wait_for
from support import batch_of

BATCHES = [batch_of([], n, n + 1) for n in range(3)]


@dataclass
class Source:
    """Yields its items, raises the last if it is an error, or waits for ever."""

    items: list[Batch | Exception]
    waits: bool = False
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    closed: bool = False

    async def batches(self) -> AsyncGenerator[Batch, None]:
        try:
            for item in self.items:
                if isinstance(item, Exception):
                    raise item
                yield item
            if self.waits:
                self.waiting.set()
                await asyncio.Event().wait()
        finally:
            self.closed = True


async def collect(stop: asyncio.Event, source: Source, into: list[Batch]) -> None:
    async with aclosing(read_ahead(source.batches(), stop)) as batches:
        while (batch := await anext(batches, None)) is not None:
            into.append(batch)


@pytest.fixture(autouse=True)
async def _no_task_is_left() -> AsyncGenerator[None, None]:
    yield
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_source_that_ends_is_read_to_its_end() -> None:
    source, got = Source([*BATCHES]), list[Batch]()
    await collect(asyncio.Event(), source, got)
    assert (got, source.closed) == (BATCHES, True)


async def test_a_stop_cuts_the_wait_off() -> None:
    stop, source, got = asyncio.Event(), Source([*BATCHES], waits=True), list[Batch]()
    running = asyncio.create_task(collect(stop, source, got))
    await source.waiting.wait()
    stop.set()
    await running
    assert (got, source.closed) == (BATCHES, True)


async def test_after_a_stop_nothing_more_is_begun() -> None:
    stop, source, got = asyncio.Event(), Source([*BATCHES]), list[Batch]()
    async with aclosing(read_ahead(source.batches(), stop)) as batches:
        async for batch in batches:
            got.append(batch)
            stop.set()
    assert got == BATCHES[:1]
    assert source.closed


async def test_while_one_batch_is_worked_on_the_next_one_is_read_and_no_more() -> None:
    read, source = list[Position](), Source([*BATCHES])

    async def batches() -> AsyncGenerator[Batch, None]:
        async with aclosing(source.batches()) as found:
            async for batch in found:
                read.append(batch.upto)
                yield batch

    seen: list[int] = []
    async with aclosing(read_ahead(batches(), asyncio.Event())) as ahead:
        async for batch in ahead:
            for _ in range(10):  # turns of the loop: all that could be read by then is
                await asyncio.sleep(0)
            seen.append(read.index(batch.upto) - len(read))
    assert seen == [-2, -2, -1]


async def test_what_comes_before_an_error_is_worked_on_first() -> None:
    source, worked_on = Source([BATCHES[0], RuntimeError("a bug")]), list[Batch]()

    async def work() -> None:
        async with aclosing(read_ahead(source.batches(), asyncio.Event())) as ahead:
            async for batch in ahead:
                while not source.closed:  # noqa: ASYNC110 - by its error; it tells nobody
                    await asyncio.sleep(0)
                worked_on.append(batch)

    with pytest.raises(RuntimeError, match="a bug"):
        await work()
    assert worked_on == BATCHES[:1]


async def test_an_error_of_the_source_is_raised_and_cleans_up() -> None:
    source, got = Source([BATCHES[0], RuntimeError("a bug")]), list[Batch]()
    with pytest.raises(RuntimeError, match="a bug"):
        await collect(asyncio.Event(), source, got)
    assert (got, source.closed) == (BATCHES[:1], True)


async def test_an_error_of_the_reader_closes_the_source() -> None:
    source = Source([*BATCHES], waits=True)

    async def read() -> None:
        async with aclosing(read_ahead(source.batches(), asyncio.Event())) as batches:
            async for _ in batches:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await read()
    assert source.closed


async def test_a_cancellation_passes_and_closes_the_source() -> None:
    source = Source([], waits=True)
    running = asyncio.create_task(collect(asyncio.Event(), source, []))
    await source.waiting.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert source.closed


async def test_waiting_ends_with_its_time_or_with_the_stop() -> None:
    stop = asyncio.Event()
    await wait_for(stop, 0)
    stop.set()
    async with asyncio.timeout(10):
        await wait_for(stop, 3600)


async def test_a_cancellation_of_a_wait_passes() -> None:
    waiting = asyncio.create_task(wait_for(asyncio.Event(), 3600))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_work_is_done_unless_a_stop_cuts_it_off() -> None:
    stop, began, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work(result: int | None) -> int:
        began.set()
        try:
            return result if result is not None else await asyncio.Future()
        finally:
            ended.set()

    assert await unless(stop, work(7)) == 7
    began.clear()
    ended.clear()
    waiting = asyncio.create_task(unless(stop, work(None)))
    await began.wait()
    stop.set()
    assert await waiting is None
    assert ended.is_set(), "nothing is left behind"


async def test_an_error_of_the_work_is_raised() -> None:
    async def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await unless(asyncio.Event(), work())

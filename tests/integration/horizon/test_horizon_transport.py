"""Whatever a server sends, the transport gives whole documents and records, or says why not."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from paywatch.errors import HorizonError, HorizonUnavailable
from paywatch.horizon.budget import Budget
from paywatch.horizon.timing import Timing
from paywatch.horizon.transport import HorizonTransport, read_retry_after

HELLO = b'retry: 1000\nevent: open\ndata: "hello"\n\n'
BYEBYE = b'retry: 10\nevent: close\ndata: "byebye"\n\n'


def answer(
    body: bytes, kind: str = "application/hal+json", status: str = "200 OK", extra: str = ""
) -> list[Any]:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{extra}"
    return [f"{head}\r\n".encode() + body]


def stream(*pieces: Any, kind: str = "text/event-stream") -> list[Any]:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}; charset=utf-8\r\nConnection: close\r\n\r\n"
    return [head.encode(), *pieces]


def record(number: int) -> bytes:
    return b'id: %d\ndata: {"paging_token": "%d"}\n\n' % (number, number)


@asynccontextmanager
async def open_transport(timing: Timing, **options: Any) -> AsyncIterator[HorizonTransport]:
    transport = HorizonTransport(timing, **options)
    try:
        yield transport
    finally:
        await transport.close()


async def get_failure(raw_server: Any, timing: Timing, *pieces: Any, **options: Any) -> Any:
    async with raw_server(list(pieces)) as server, open_transport(timing, **options) as transport:
        with pytest.raises(HorizonUnavailable) as caught:
            await transport.get(server.url, {"cursor": "0", "limit": "200"})
    return caught.value


async def read_stream(
    raw_server: Any, timing: Timing, *pieces: Any, **options: Any
) -> tuple[list[int], HorizonUnavailable | None]:
    """Give the records that were yielded, and why it ended if not by a goodbye."""
    found: list[int] = []
    async with (
        raw_server(list(pieces)) as server,
        open_transport(timing, **options) as transport,
        aclosing(transport.stream(server.url)) as records,
    ):
        try:
            async with asyncio.timeout(20):  # a stream that never ends fails here
                async for one in records:
                    found.append(int(one["paging_token"]))  # noqa: PERF401 - kept if it fails
        except HorizonUnavailable as error:
            return found, error
    return found, None


async def test_get_reads_an_object_and_drops_its_links(raw_server: Any, fast: Timing) -> None:
    codes: list[str] = []
    body = b'{"_links": {"next": {"href": "http://evil/"}}, "a": 1}'
    async with (
        raw_server(answer(body)) as server,
        open_transport(fast, on_response=codes.append) as transport,
    ):
        response = await transport.get(server.url + "/x", {"cursor": "7"})
    assert response.json() == {"a": 1}
    assert codes == ["200"]
    head = server.requests[0].lower()
    assert head.startswith("get /x?cursor=7 ")
    assert "user-agent: paywatch/" in head


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        (answer(b"<html>", "text/html"), "not_json"),
        (answer(b"", ""), "not_json"),
        (answer(b'{"a": 1'), "malformed"),
        (answer(b'{"a": NaN}'), "malformed"),
        (answer(b"[1]"), "malformed"),
        (answer(b"{}", "application/problem+json", "404 Not Found"), "not_found"),
        (answer(b"<html>", "text/html", "404 Not Found"), "status_404"),
        (answer(b"{}", "application/problem+json", "410 Gone"), "status_410"),
        (answer(b"", status="302 Found", extra="Location: http://evil/\r\n"), "status_302"),
        (answer(b"{}", "application/problem+json", "500 Oops"), "status_500"),
        (answer(b"busy", "text/plain", "503 Busy"), "status_503"),
        (answer(b"", "text/html", "504 Gateway Timeout"), "status_504"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"], "not_json"),
        ([answer(b'{"a": 1}')[0][:-3]], "connection"),
        ([b"SSH-2.0-OpenSSH\r\n\r\n"], "connection"),
        ([], "connection"),
        ([None], "timeout"),
        ([b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{", None],
         "timeout"),
        (answer(b"junk", extra="Content-Encoding: gzip\r\n"), "connection"),
    ],
)  # fmt: skip
async def test_get_says_why_not(
    raw_server: Any, fast: Timing, hasty: Timing, pieces: list[Any], reason: str
) -> None:
    timing = hasty if reason == "timeout" else fast
    assert (await get_failure(raw_server, timing, *pieces)).reason == reason


async def test_a_document_is_parsed_when_it_may_take_the_processor(
    raw_server: Any, fast: Timing
) -> None:
    """It has been read by then: whoever waits for the processor is no slow Horizon."""
    read, go = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        read.set()
        await go.wait()

    async with (
        raw_server(answer(b'{"a": 1}')) as server,
        open_transport(fast, before_parsing=wait) as transport,
        asyncio.timeout(20),
    ):
        getting = asyncio.create_task(transport.get(server.url))
        await read.wait()
        assert not getting.done()
        go.set()
        assert (await getting).json() == {"a": 1}


async def test_a_body_is_capped_as_it_is_read_and_after_decompression(
    raw_server: Any, hasty: Timing
) -> None:
    head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n\r\n"
    endless = [head.encode() + b"x" * 5000, None]  # never whole: only the reading can refuse it
    large = b'{"a": "' + b"x" * 5000 + b'"}'
    packed = answer(gzip.compress(large), extra="Content-Encoding: gzip\r\n")
    for pieces in (endless, packed):
        error = await get_failure(raw_server, hasty, *pieces, max_page_bytes=1000)
        assert error.reason == "too_large"


async def test_one_record_may_be_larger_than_a_page_of_several(
    raw_server: Any, fast: Timing
) -> None:
    large = answer(b'{"a": "' + b"x" * 5000 + b'"}')
    for params in ({"cursor": "0", "limit": "1"}, {"limit": "200"}, None):
        async with raw_server(large) as raw, open_transport(fast, max_page_bytes=1000) as transport:
            document = (await transport.get(raw.url, params)).json()
        assert len(document["a"]) == 5000


async def test_every_request_and_what_horizon_says_of_it_is_counted(
    raw_server: Any, fast: Timing
) -> None:
    budget = Budget(clock=lambda: 0.0)
    few = answer(b"{}", extra="X-RateLimit-Limit: 101\r\nX-RateLimit-Remaining: 40\r\n")
    refused = answer(b"{}", "application/problem+json", "429 Too Many", "Retry-After: 7\r\n")
    async with (
        raw_server(answer(b"{}"), few, stream(HELLO, BYEBYE), refused) as raw,
        open_transport(fast, budget=budget) as transport,
    ):
        for left in (100, 40):
            await transport.get(raw.url)
            assert budget.left == left
        async with aclosing(transport.stream(raw.url)) as records:
            assert [record async for record in records] == []
        assert budget.left == 39
        with pytest.raises(HorizonUnavailable):
            await transport.get(raw.url)
        assert (budget.left, budget.wait_s()) == (0, 7.0)


async def test_nobody_listens(fast: Timing) -> None:
    codes: list[str] = []
    async with open_transport(fast, on_response=codes.append) as transport:
        with pytest.raises(HorizonUnavailable) as caught:
            await transport.get("http://127.0.0.1:1/")
    assert caught.value.reason == "connection"
    assert codes == ["connection"]


async def test_paywatch_never_submits(fast: Timing) -> None:
    with pytest.raises(HorizonError):
        await HorizonTransport(fast).post("http://127.0.0.1:1/transactions", {"tx": "AAAA"})


async def test_429_says_how_long_to_wait(raw_server: Any, fast: Timing) -> None:
    for extra, wait_s in (
        ("Retry-After: 7\r\n", 7.0),
        ("X-RateLimit-Reset: 61\r\n", 61.0),
        ("", None),
    ):
        pieces = answer(b"{}", "application/problem+json", "429 Too Many Requests", extra)
        error = await get_failure(raw_server, fast, *pieces)
        assert (error.reason, error.retry_after) == ("status_429", wait_s)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "Sat, 01 Aug 2026 10:00:30 GMT"}, 30.0),
        ({"Retry-After": "Sat, 01 Aug 2026 09:00:00 GMT"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "9" * 400}, None),
        ({"Retry-After": f"Sat, 01 Aug {'9' * 400} 10:00:00 GMT"}, None),
        ({"X-RateLimit-Reset": "12"}, None),  # says nothing about a 503
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], wait_s: float | None) -> None:
    now = datetime(2026, 8, 1, 10, tzinfo=UTC)
    assert read_retry_after(503, headers, now) == wait_s


async def test_a_stream_ends_with_a_goodbye(raw_server: Any, fast: Timing) -> None:
    whole = HELLO + record(1) + record(2) + BYEBYE
    assert await read_stream(raw_server, fast, *stream(whole)) == ([1, 2], None)
    slowly = [whole[at : at + 1] for at in range(len(whole))]
    assert await read_stream(raw_server, fast, *stream(*slowly)) == ([1, 2], None)


@pytest.mark.parametrize(
    "case",
    [
        (stream(HELLO, record(1)), [1], "cut"),
        (stream(HELLO, record(1), record(2)[:-1]), [1], "cut"),
        (stream(HELLO, record(1), b"id: 2\n"), [1], "cut"),
        (stream(HELLO, record(1), b"id: 2\ndata: {\n\n", record(3)), [1], "malformed"),
        (stream(HELLO, record(1), b"data: NaN\n\n"), [1], "malformed"),
        (stream(HELLO, record(1), b"event: error\ndata: Rate limit exceeded\n\n"), [1],
         "stream_error"),
        (stream(b"<html>", kind="text/html"), [], "not_json"),
        (stream(b"{}", kind="application/json"), [], "not_json"),
        (answer(b"{}", "application/problem+json", "404 Not Found"), [], "not_found"),
        (answer(b"{}", "application/problem+json", "429 Too Many"), [], "status_429"),
        ([None], [], "timeout"),
        (stream(None), [], "timeout"),
        (stream(b": a proxy's comment\n", None), [], "timeout"),
        (stream(HELLO, record(1), None), [1], "timeout"),
        (stream(HELLO, record(1), b"data: {", None), [1], "timeout"),
        (stream(...), [], "timeout"),
        (stream(HELLO, record(1), ...), [1], "timeout"),
    ],
)  # fmt: skip
async def test_a_stream_says_why_it_ended(
    raw_server: Any, fast: Timing, hasty: Timing, case: tuple[list[Any], list[int], str]
) -> None:
    pieces, found, reason = case
    timing = hasty if reason == "timeout" else fast
    records, error = await read_stream(raw_server, timing, *pieces)
    assert records == found
    assert error is not None
    assert error.reason == reason


async def test_a_streamed_record_is_capped(raw_server: Any, fast: Timing) -> None:
    pieces = stream(HELLO, record(1), b"data: " + b"x" * 2000)
    records, error = await read_stream(raw_server, fast, *pieces, max_record_bytes=1000)
    assert records == [1]
    assert error is not None
    assert error.reason == "too_large"


async def test_a_stream_that_is_left_closes_its_connection(raw_server: Any, fast: Timing) -> None:
    async with (
        raw_server(stream(HELLO, record(1), None)) as server,
        open_transport(fast) as transport,
    ):
        async with aclosing(transport.stream(server.url)) as records:
            await anext(records)
        await server.drain()  # the server sees the end of the connection

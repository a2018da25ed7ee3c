"""Any bytes as Horizon's response, to a page and to a stream: documents, or Horizon unavailable."""

from typing import Final

from fuzz.answers import response
from fuzz.hostile import Hostile
from fuzz.target import Target, dumped, real_records
from paywatch.errors import HorizonUnavailable
from paywatch.horizon.timing import Timing
from paywatch.horizon.transport import HorizonTransport

_CAP: Final = 16_384
SERVER: Final = Hostile()


def run(raw: bytes) -> None:
    """Read a page, and a stream, of a server that says just these bytes."""
    url = SERVER.open()
    SERVER.says = raw
    SERVER.run(_read(f"{url}/payments"))


async def _read(url: str) -> None:
    timing = Timing(get_s=5.0, first_event_s=5.0, silence_s=5.0)
    transport = HorizonTransport(timing, max_page_bytes=_CAP, max_record_bytes=_CAP)
    try:
        try:
            page = await transport.get(url, {"cursor": "0", "limit": "200"})
        except HorizonUnavailable as error:
            _check(error)
        else:
            assert isinstance(page.json(), dict)
        records = 0
        try:
            async for record in transport.stream(url):
                assert isinstance(record, dict)
                records += 1
        except HorizonUnavailable as error:
            _check(error)
        assert records <= len(SERVER.says), "more records than bytes"
        assert 0 <= transport.budget.left <= transport.budget.size
    finally:
        await transport.close()


def _check(error: HorizonUnavailable) -> None:
    assert error.reason != "timeout", "it hung on a server that had hung up"
    assert error.retry_after is None or error.retry_after >= 0
    str(error).encode()
    error.reason.encode()


def _seeds() -> tuple[bytes, ...]:
    record = dumped(next(real_records("[0-9]*-payment-alone.json")))
    page = dumped({"_embedded": {"records": [next(real_records())]}})
    hello, goodbye = b'event: open\ndata: "hello"\n\n', b'event: close\ndata: "byebye"\n\n'
    stream = hello + b"id: 1\ndata: " + record + b"\n\n"
    json, events = "Content-Type: application/hal+json", "Content-Type: text/event-stream"
    problem = "Content-Type: application/problem+json"
    limits = ("X-Ratelimit-Limit: 101", "X-Ratelimit-Remaining: 0", "X-Ratelimit-Reset: 3")
    return (
        response("200 OK", page, json, *limits),
        response("200 OK", stream + goodbye, events),
        response("200 OK", stream + b"event: error\ndata: no\n\n", events),
        response("404 Not Found", b"{}", problem),
        response("429 Too Many Requests", b"", *limits),
        response("503 Busy", b"", "Retry-After: Fri, 20 Nov 2026 10:10:10 GMT"),
        response("200 OK", b"<html>", "Content-Type: text/html; charset=utf-8"),
        response("200 OK", b"\x1f\x8b", json, "Content-Encoding: gzip"),
        response("200 OK", b"5\r\ndata:\r\n", events, "Transfer-Encoding: chunked"),
    )


TARGET = Target(run, _seeds(), is_slow=True)

"""Any bytes, in any pieces, as a stream of events: the same events, within bounds."""

from itertools import pairwise

from fuzz.target import Target, dumped, real_records
from paywatch.errors import HorizonUnavailable
from paywatch.horizon.sse import EventDecoder, ServerSentEvent

_CAP = 4096
_END = None  # in the place of an event: here the cap struck


def run(raw: bytes) -> None:
    """The first bytes say where to cut the others."""
    cuts, stream = raw[:8], raw[8:]
    whole = decode([stream])
    step = 1 + len(stream) // 512
    assert decode([stream[at : at + step] for at in range(0, len(stream), step)]) == whole
    places = sorted({0, len(stream), *(cut * len(stream) // 256 for cut in cuts)})
    assert decode([b"", *(stream[a:b] for a, b in pairwise(places)), b""]) == whole
    data = sum(len(event.data) for event in whole if event)
    assert data <= len(stream), "more came out than went in"
    assert all(len(event.data) <= _CAP for event in whole if event)


def decode(chunks: list[bytes]) -> list[ServerSentEvent | None]:
    """The events, and whether the cap struck behind them."""
    decoder = EventDecoder(_CAP)
    events: list[ServerSentEvent | None] = []
    try:
        for chunk in chunks:
            events += decoder.feed(chunk)
            assert len(decoder._line) + sum(map(len, decoder._data)) <= _CAP
    except HorizonUnavailable as error:
        assert error.reason == "too_large"
        events.append(_END)
    return events


def _seeds() -> tuple[bytes, ...]:
    events = [
        b"id: %s\ndata: %s\n\n" % (record["paging_token"].encode(), dumped(record)[:60])
        for record in list(real_records())[:2]
    ]
    hello = b'retry: 1000\nevent: open\ndata: "hello"\n\n'
    goodbye = b'event: close\ndata: "byebye"\n\n'
    stream = hello + b"".join(events) + goodbye
    mixed = b"\xef\xbb\xbf: \r\rdata\r\ndata:  x\r\n\r\nid: \0\nid\nevent: e\ndata: y\r\r"
    return tuple(bytes(range(0, 240, 30)) + seed for seed in (stream, hello + goodbye, mixed))


TARGET = Target(run, _seeds())

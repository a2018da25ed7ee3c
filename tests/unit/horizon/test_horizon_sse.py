"""The event decoder: any split of the bytes gives the same whole events, and nothing else."""

import pytest

from paywatch.errors import HorizonUnavailable
from paywatch.horizon.sse import EventDecoder, ServerSentEvent

STREAM = (
    b'\xef\xbb\xbfretry: 1000\nevent: open\ndata: "hello"\n\n'
    b': a comment\r\nid: 7\r\ndata: {"a":\r\ndata: 1}\r\n\r\n'
    b"id:8\rdata:  two\r\r"
    b"\n\nevent: nothing\n\n"
)
EVENTS = [
    ServerSentEvent("open", b'"hello"', None),
    ServerSentEvent("message", b'{"a":\n1}', "7"),
    ServerSentEvent("message", b" two", "8"),
]


def decode(*chunks: bytes, cap: int = 1000) -> list[ServerSentEvent]:
    decoder = EventDecoder(cap)
    return [event for chunk in chunks for event in decoder.feed(chunk)]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 1000])
def test_any_split_gives_the_same_events(size: int) -> None:
    chunks = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
    assert decode(*chunks) == EVENTS


@pytest.mark.parametrize("end", range(len(STREAM) + 1))
def test_a_cut_event_is_never_given(end: int) -> None:
    found = decode(STREAM[:end])
    assert found == EVENTS[: len(found)]


def test_the_id_of_a_cut_event_does_not_leak() -> None:
    assert decode(b"id: 9\n\ndata: x\n\n") == [ServerSentEvent("message", b"x", None)]
    assert decode(b"id: 9\n", b"data: x\n") == []


@pytest.mark.parametrize("size", [1, 2, 100])
def test_a_byte_order_mark_is_no_part_of_the_first_field(size: int) -> None:
    raw = b"\xef\xbb\xbfdata: x\n\n"
    chunks = [raw[at : at + size] for at in range(0, len(raw), size)]
    assert decode(*chunks) == [ServerSentEvent("message", b"x", None)]


def test_empty_chunks_do_not_split_a_line_end() -> None:
    assert decode(b"data: x\r", b"", b"\n\r\n") == [ServerSentEvent("message", b"x", None)]


def test_a_blank_line_behind_a_split_line_end_is_not_taken_for_its_second_half() -> None:
    assert decode(b"data: x\r", b"\n", b"\n") == [ServerSentEvent("message", b"x", None)]
    assert decode(b"data: x\r", b"\n", b"", b"\n") == decode(b"data: x\r\n\n")


@pytest.mark.parametrize("cap", range(14, 24))
def test_the_cap_strikes_wherever_the_bytes_were_split(cap: int) -> None:
    raw = b"data: 12\r\nid: 3\r\n\r\n"

    def is_refused(*chunks: bytes) -> bool:
        try:
            return not decode(*chunks, cap=cap)
        except HorizonUnavailable:
            return True

    assert is_refused(raw) == is_refused(*(raw[at : at + 1] for at in range(len(raw))))


def test_bytes_of_any_kind_pass() -> None:
    raw = b"data: \xff\x00\xe2\x80\xa8 \x85 x\n\n"  # U+2028 and U+0085 end no line
    assert decode(raw) == [ServerSentEvent("message", b"\xff\x00\xe2\x80\xa8 \x85 x", None)]


@pytest.mark.parametrize(
    "raw", [b"data: " + b"x" * 100, b"data: xxxx\n" * 20, b"id: 1\n" * 30, b"x" * 101]
)
def test_an_event_is_capped(raw: bytes) -> None:
    with pytest.raises(HorizonUnavailable) as caught:
        decode(*(raw[at : at + 7] for at in range(0, len(raw), 7)), cap=100)
    assert caught.value.reason == "too_large"


def test_the_cap_is_of_one_event() -> None:
    assert len(decode(b"data: xxxx\n\n" * 100, cap=20)) == 100

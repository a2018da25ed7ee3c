"""The event decoder does not depend on how the bytes were split, and takes any bytes."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from paywatch.horizon.sse import EventDecoder, ServerSentEvent

PIECES = st.sampled_from(
    [b"\n", b"\r", b"\r\n", b"data: x", b"data", b"id: 1", b"event: e", b":", b"\xef\xbb\xbf"]
)


def decode(chunks: list[bytes]) -> list[ServerSentEvent]:
    decoder = EventDecoder(1 << 20)
    return [event for chunk in chunks for event in decoder.feed(chunk)]


@given(pieces=st.lists(PIECES | st.binary(max_size=4)), cuts=st.lists(st.integers(0, 400)))
def test_splits_do_not_matter(pieces: list[bytes], cuts: list[int]) -> None:
    raw = b"".join(pieces)
    places = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
    chunks = [raw[start:end] for start, end in itertools.pairwise(places)]
    assert decode(chunks) == decode([raw])

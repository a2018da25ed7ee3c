"""Records out of a file, in whatever form somebody saved them."""

from collections.abc import Mapping
from typing import Any, Final

from paywatch.errors import HorizonUnavailable, InvalidInput
from paywatch.horizon.sse import EventDecoder
from paywatch.horizon.strict_json import parse_json

MAX_CAPTURE_BYTES: Final = 64 << 20


def read_capture(raw: bytes) -> list[Mapping[str, Any]]:
    """Read one record, a list of records, a page of Horizon's, or a captured stream.

    Of a stream that was cut, the whole events count.

    Raises:
        InvalidInput: none of these, or a record is not an object.
    """
    try:
        is_json = raw.lstrip()[:1] in {b"{", b"["}
        found = _records(parse_json(raw, MAX_CAPTURE_BYTES)) if is_json else _streamed(raw)
    except HorizonUnavailable as error:
        raise InvalidInput("capture", str(error)) from error
    if not all(isinstance(record, Mapping) for record in found):
        raise InvalidInput("capture", "a record must be a JSON object")
    return found


def _records(document: Any) -> list[Any]:
    if isinstance(document, list):
        return document
    embedded = document.get("_embedded")
    if isinstance(embedded, Mapping) and isinstance(embedded.get("records"), list):
        return list(embedded["records"])
    return [document]


def _streamed(raw: bytes) -> list[Any]:
    decoder = EventDecoder(MAX_CAPTURE_BYTES)
    events = list(decoder.feed(raw))
    if not events:
        raise InvalidInput(
            "capture", "must be a record, a list of records, a page or a captured event stream"
        )
    return [
        parse_json(event.data, MAX_CAPTURE_BYTES) for event in events if event.event == "message"
    ]

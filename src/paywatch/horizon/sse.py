"""Server-sent events out of bytes, without I/O.

Unlike a browser this decoder forgets an event's `id` with the event: an event cut in the middle
leaves nothing behind, and a position is never taken from here, only from a whole parsed record.
(WHATWG HTML, 9.2.6 "Interpreting an event stream".)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from paywatch.errors import HorizonUnavailable

_BOM: Final = b"\xef\xbb\xbf"
_LINE_ENDS: Final = (b"\n", b"\r")


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One whole event: everything up to its blank line has arrived."""

    event: str
    data: bytes
    id: str | None


class EventDecoder:
    """Decodes one connection's bytes, in whatever pieces they come.

    Args:
        max_event_bytes: the most that one event may have, its field names included.
    """

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._line = bytearray()
        self._after_cr = False
        self._first_line = True
        self._size = 0
        self._event = ""
        self._data: list[bytes] = []
        self._id: str | None = None

    def feed(self, chunk: bytes) -> Iterator[ServerSentEvent]:
        """Take the next bytes and yield the events that they complete; read it to its end.

        Raises:
            HorizonUnavailable: `too_large`: an event exceeds the cap.
        """
        begin = int(self._after_cr and chunk.startswith(b"\n"))  # a \r\n that was split
        self._after_cr = chunk.endswith(b"\r") if chunk else self._after_cr
        for piece in chunk[begin:].splitlines(keepends=True):  # of bytes: at \n, \r and \r\n only
            self._grow(piece)
            if piece.endswith(_LINE_ENDS) and (event := self._end_line()):
                yield event

    def _grow(self, piece: bytes) -> None:
        text = piece.rstrip(b"\r\n")
        self._size += len(text) + piece.endswith(_LINE_ENDS)  # \r\n is one: it may come in two
        if self._size > self._max_event_bytes:
            raise HorizonUnavailable(
                "too_large", f"an event of more than {self._max_event_bytes} bytes"
            )
        self._line += text

    def _end_line(self) -> ServerSentEvent | None:
        line = bytes(self._line)
        self._line.clear()
        if self._first_line:
            line = line.removeprefix(_BOM)
            self._first_line = False
        if not line:
            return self._end_event()
        name, _, value = line.partition(b":")
        self._field(name, value.removeprefix(b" "))
        return None

    def _field(self, name: bytes, value: bytes) -> None:
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._event = value.decode(errors="replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode(errors="replace")
        # `retry` is not obeyed: how long to wait is decided here; a comment has no name.

    def _end_event(self) -> ServerSentEvent | None:
        event = ServerSentEvent(self._event or "message", b"\n".join(self._data), self._id)
        has_data = bool(self._data)
        self._begin_event()
        return event if has_data else None

    def _begin_event(self) -> None:
        self._size = 0
        self._event = ""
        self._data = []
        self._id = None

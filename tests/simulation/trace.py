"""What happened, line by line: two runs of a seed are equal if their traces are."""

import hashlib
from collections import deque
from collections.abc import Callable
from typing import Final

_KEPT: Final = 400  # lines, to be shown when something is wrong


class Trace:
    """Lines in the order of events, and their digest.

    Args:
        now: the virtual time in seconds.
        on_line: shown each line.
    """

    def __init__(
        self, now: Callable[[], float], on_line: Callable[[str], None] = lambda _line: None
    ) -> None:
        self._now = now
        self._on_line = on_line
        self._hash = hashlib.sha256()
        self.tail: deque[str] = deque(maxlen=_KEPT)
        self.lines = 0

    def note(self, who: str, what: str) -> None:
        """Write that something happened."""
        line = f"{self._now():.6f} {who}: {what}"
        self._hash.update(line.encode() + b"\n")
        self.tail.append(line)
        self.lines += 1
        self._on_line(line)

    @property
    def digest(self) -> str:
        """The same for the same lines only."""
        return self._hash.hexdigest()[:16]

"""What a simulated network remembers across restarts: every ledger's time and envelopes.

One JSON line a ledger, written before the ledger is applied. A last line that was cut off by a
kill is dropped, with its ledger: nobody was told of it.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path


class Journal:
    """A file of closed ledgers.

    Args:
        path: the file; made, with its folder, when it is first written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[tuple[datetime, list[str]]]:
        """Closing time and envelopes of each ledger, the genesis first."""
        if not self._path.exists():
            return
        whole = self._path.read_bytes()
        whole = whole[: whole.rfind(b"\n") + 1]
        with self._path.open("r+b") as file:
            file.truncate(len(whole))
        for line in whole.splitlines():
            closed_at, *envelopes = json.loads(line)
            yield datetime.fromisoformat(closed_at), envelopes

    def clear(self) -> None:
        """Forget everything: another history begins."""
        self._path.unlink(missing_ok=True)

    def append(self, closed_at: datetime, envelopes: Sequence[str]) -> None:
        """Remember one ledger; the bytes are with the operating system when this returns."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="ascii") as file:
            file.write(json.dumps([closed_at.isoformat(), *envelopes]) + "\n")

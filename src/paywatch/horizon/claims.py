"""How far pages prove that a stream has been read, when some of them are empty."""

import asyncio
from collections import deque

from paywatch.domain.ledger import Position
from paywatch.horizon.pages import Page


class Claims:
    """The position of one stream, moved by its pages.

    To the last record of each. An empty one claims the tip, but behind a load balancer it may come
    from an instance that lags behind the one that told the tip. So it moves the position only to a
    tip that was claimed `overlap_s` ago: what that instance lacked then, it would show by now.
    And never further than the page itself claims: another instance, that lags by more, confirms
    nothing beyond its own tip.
    """

    def __init__(self, after: Position, overlap_s: float) -> None:
        self.position = after
        self._overlap_s = overlap_s
        self._empty: deque[tuple[float, Position]] = deque()  # the tips that empty pages claimed

    def believe(self, page: Page) -> Position:
        """Move the position as far as a page proves, and give it."""
        if page.records:
            self._empty.clear()
            self.position = page.upto
            return self.position
        now = asyncio.get_running_loop().time()
        self._empty.append((now, page.upto))
        while self._empty and self._empty[0][0] <= now - self._overlap_s:
            claimed = self._empty.popleft()[1]
            self.position = max(self.position, min(claimed, page.upto))
        return self.position

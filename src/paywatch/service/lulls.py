"""Lulls: what is read ahead is parsed while settling only waits for PostgreSQL.

A process has one processor for Python, and a page takes it for milliseconds. In them a transaction
that holds locks would stand still, for nothing that is in a hurry.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

LONGEST_S: Final = 0.05  # then it is parsed all the same: a settlement may wait for a lock


class Lulls:
    """The settlements of one process that have something left to compute."""

    def __init__(self) -> None:
        self._at_work = 0
        self._lull = asyncio.Event()
        self._lull.set()

    @contextmanager
    def computing(self) -> Iterator[Callable[[], None]]:
        """Let nothing be parsed within the block, or until what it yields is called."""
        is_over = False

        def over() -> None:
            nonlocal is_over
            if not is_over:
                is_over = True
                self._at_work -= 1
                if not self._at_work:
                    self._lull.set()

        self._at_work += 1
        self._lull.clear()
        try:
            yield over
        finally:
            over()

    @property
    def is_now(self) -> bool:
        """Whether none of them has."""
        return self._lull.is_set()

    async def wait(self) -> None:
        """Wait for a lull, for `LONGEST_S` at most."""
        if self.is_now:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_S):
                await self._lull.wait()

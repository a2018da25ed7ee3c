"""One round trip, run to its end by the loop itself: no other task runs meanwhile."""

import select
from collections.abc import Callable
from typing import Any, Final

import psycopg
from psycopg import waiting

from simulation.steps import Gen

# An answer that takes longer may be waiting for a lock: then the server is asked.
_LOOK_MS: Final = 3


class Attempt:
    """One round trip of psycopg's, which may stop on the way."""

    def __init__(self, conn: psycopg.AsyncConnection[Any], gen: Gen) -> None:
        self._conn = conn
        self._gen = gen
        self._wanted: Any = None
        self._value: Any = None
        self._error: BaseException | None = None
        self._is_done = False

    def advance(self, is_blocked: Callable[[], bool]) -> bool:
        """Go on until it is done; False if the server waits for a lock."""
        if self._wanted is None:
            self._step(None)
        while not self._is_done:
            ready = self._poll()
            if ready:
                self._step(ready)
            elif is_blocked():
                return False
        return True

    def result(self) -> Any:
        """Its value, or what it raised."""
        if self._error is not None:
            raise self._error
        return self._value

    def _poll(self) -> int:
        wanted = int(self._wanted)
        poll = select.poll()
        mask = (select.POLLIN if wanted & 1 else 0) | (select.POLLOUT if wanted & 2 else 0)
        poll.register(self._conn.pgconn.socket, mask)
        found = poll.poll(_LOOK_MS)
        if not found:
            return 0
        event = found[0][1]
        broken = event & (select.POLLHUP | select.POLLERR | select.POLLNVAL)
        readable = 1 if event & select.POLLIN or broken else 0
        return (readable | (2 if event & select.POLLOUT else 0)) & wanted or wanted & 1

    def _step(self, ready: int | None) -> None:
        try:
            if ready is None:
                self._wanted = next(self._gen)
            else:
                self._wanted = self._gen.send(waiting.Ready(ready))
        except StopIteration as stop:
            self._is_done, self._value = True, stop.value
        except BaseException as error:  # noqa: BLE001 # it is raised by `result`
            self._is_done, self._error = True, error


def finish(attempt: Attempt) -> Any:
    """Run it to its end, lock or not; raises what it raises."""
    attempt.advance(lambda: False)
    return attempt.result()

"""What one stream sees of the pool: pages of any instance, and the connection beside them."""

from typing import Protocol, TypeVar

from paywatch.domain.ledger import Position
from paywatch.horizon.arrivals import Arrivals
from paywatch.horizon.instance import Instance, Question
from paywatch.horizon.pages import Page

T = TypeVar("T")


class _Pool(Protocol):
    @property
    def current(self) -> Instance: ...

    async def ask(self, question: Question[T]) -> tuple[Instance, T]: ...


class Reader:
    """Connects to the instance that answered the last page, and follows a change of instance."""

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        self._instance: Instance | None = None  # of the last page
        self._connected_to: Instance | None = None
        self._arrivals: Arrivals | None = None

    async def read_page(self, account: str, after: Position) -> Page:
        """Read a page; if its instance is changed over to, end the connection to the old one."""
        instance, page = await self._pool.ask(lambda source: source.read_page(account, after))
        self._instance = instance
        # A page that another one answered for once is no reason to move the connection there.
        if self._arrivals and self._connected_to not in {instance, self._pool.current}:
            self._arrivals.end()
            self._arrivals = None
        return page

    def connect(self, account: str, after: Position) -> Arrivals:
        """Open the stream of what comes after a position, after a page of it was read."""
        instance = self._instance or self._pool.current
        self._connected_to, self._arrivals = instance, instance.connect(account, after)
        return self._arrivals

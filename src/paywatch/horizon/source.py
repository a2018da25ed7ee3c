"""One Horizon instance as a source: pages, the live stream, and where to begin.

The SDK's call builders say what to ask; our transport asks it. Positions are numbers everywhere:
Horizon resolves `cursor=now` afresh at each use, so that a ledger can be skipped.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Container
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self

from stellar_sdk.server_async import ServerAsync
from stellar_sdk.utils import urljoin_with_query

from paywatch.domain.announcement import Trace, TxState
from paywatch.domain.ledger import Batch, LedgerRecord, Position
from paywatch.errors import HistoryGap, HorizonUnavailable, InvalidInput, RecordError
from paywatch.horizon.arrivals import Arrivals
from paywatch.horizon.budget import Budget
from paywatch.horizon.continuity import ReadHistory, first_history
from paywatch.horizon.documents import (
    PAGE_LIMIT,
    Root,
    TxEnding,
    is_untouched_since,
    read_records,
)
from paywatch.horizon.fields import read_time
from paywatch.horizon.pages import Page, read_placed
from paywatch.horizon.polite import PoliteTransport
from paywatch.horizon.roots import Roots
from paywatch.horizon.timing import Timing
from paywatch.horizon.transport import NOT_FOUND, TIMEOUT, TOO_LARGE, HorizonTransport

Stream = AsyncGenerator[dict[str, Any], None]
Noted = Callable[[Stream], Stream]

SURELY_KEPT: Final = 60  # ledgers, 5 minutes: no instance keeps as little
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)


class HorizonSource:
    """One Horizon instance.

    Args:
        url: its address.
        passphrase: the network that it must serve.
        transport: how it is reached; closed with the source.
        timing: how long to wait for what.
        read_history: tells which history of the network it is, and by what it is known.
        sleep: waits that many seconds.
        roots: shared with another source of the same instance.
    """

    def __init__(  # noqa: PLR0913 - the boundary is wired here; all but the first two have defaults
        self,
        url: str,
        passphrase: str,
        transport: HorizonTransport | PoliteTransport | None = None,
        *,
        timing: Timing | None = None,
        read_history: ReadHistory = first_history,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        roots: Roots | None = None,
    ) -> None:
        self.url = url
        self._passphrase = passphrase
        self._timing = timing or Timing()
        self._transport: HorizonTransport | PoliteTransport = transport or HorizonTransport(
            self._timing
        )
        self._server = ServerAsync(url, client=self._transport)
        self._sleep = sleep
        self._roots = roots or Roots(self._server, passphrase, self._timing, read_history)
        self._page_limit = PAGE_LIMIT

    @property
    def budget(self) -> Budget:
        """The requests that the instance has left for us."""
        return self._transport.budget

    def polite(self) -> "HorizonSource":
        """Read the same instance for work that can wait; the root documents are shared."""
        if isinstance(self._transport, PoliteTransport):
            return self
        return HorizonSource(
            self.url,
            self._passphrase,
            PoliteTransport(self._transport, self._sleep),
            timing=self._timing,
            sleep=self._sleep,
            roots=self._roots,
        )

    async def __aenter__(self) -> Self:
        """Use as a context manager to close the connections."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all connections."""
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def root(self) -> Root:
        """Read what the instance says of itself, at most `root_age_s` old.

        An old tip is safe: it only claims less than has been read.

        Raises:
            HorizonUnavailable: it cannot be read.
        """
        return await self._roots.read()

    async def look(self) -> Root:
        """Read the root, and refuse one of another network.

        Raises:
            HorizonUnavailable, WrongNetwork: which it is.
        """
        root = await self.root()
        root.require_network(self._passphrase)
        return root

    @property
    def last_root(self) -> Root | None:
        """What it said last."""
        return self._roots.last

    async def require_history(self, after: Position) -> None:
        """Refuse a cursor that cannot go on here.

        Raises:
            HistoryGap, NetworkReset, WrongNetwork: it cannot.
            HorizonUnavailable: that cannot be found out now.
        """
        (await self.checked_root()).require_history(after)

    async def checked_root(self) -> Root:
        """Read the root, and refuse one of another network or another history.

        Raises:
            HorizonUnavailable, WrongNetwork, NetworkReset: which it is.
        """
        return await self._roots.check(await self.root())

    async def tip(self) -> Position:
        """Give the start of a new account: after everything that is on the ledger already."""
        return (await self.checked_root()).tip

    async def page(self, account: str, after: Position) -> Batch:
        """Read one page of at most 200 operations.

        Raises:
            HorizonUnavailable: try again; nothing has been claimed.
            HistoryGap, NetworkReset, WrongNetwork: do not go on here.
        """
        page = await self.read_page(account, after)
        if page.unfunded:  # one look proves nothing; the live stream looks again and again
            return Batch((), after, after, None, 0, unfunded=True)
        return page.batch({account})

    async def network_page(self, watched: Container[str], after: Position) -> Batch:
        """Read one page of everybody's operations, and keep those of watched accounts.

        Raises as `page`.
        """
        return (await self.read_page(None, after)).batch(watched)

    async def read_page(self, account: str | None, after: Position) -> Page:
        """Read one page unparsed, of one account or of all; raises as `page`."""
        # The order matters: what is not on the page may be claimed only up to a tip read before.
        root = await self.checked_root()
        root.require_history(after)
        page = await self._page(account, after, root)
        if page.may_skip and root.latest - after.ledger > SURELY_KEPT:
            # The history may have been cut since the root was read, and Horizon moves a cursor to
            # the oldest ledger in silence. What is kept after the page was kept before it.
            (await self._roots.check(await self._roots.read(anew=True))).require_history(after)
        return page

    async def _page(self, account: str | None, after: Position, root: Root) -> Page:
        try:
            document, limit = await self._call_page(account, after, self._page_limit)
        except HorizonUnavailable as error:
            if error.reason != NOT_FOUND or account is None:
                raise
            return await self._page_without_history(account, after, root)
        return Page.of(read_records(document), after, root, limit)

    async def _call_page(
        self, account: str | None, after: Position, limit: int
    ) -> tuple[dict[str, Any], int]:
        """Ask for fewer records where so many are too large; give the limit that fitted.

        Each record embeds its whole transaction: two of a hundred operations each, with meta, can
        be over the cap together, and anyone can send them for a few stroops. On a slow link as many
        as fit may not arrive in time: then the next pages are smaller, and grow again.
        """
        fewer = max(1, limit // 10)
        try:
            document = await self._payments(account, after).limit(limit).call()
        except HorizonUnavailable as error:
            if error.reason == TIMEOUT:
                self._page_limit = fewer
            if error.reason != TOO_LARGE or limit == 1:
                raise
            return await self._call_page(account, after, fewer)
        if limit == self._page_limit:
            self._page_limit = min(PAGE_LIMIT, 2 * limit)
        return document, limit

    async def _page_without_history(self, account: str, after: Position, root: Root) -> Page:
        """Take Horizon's 404 for an empty page only as far as the account's own entry proves it.

        An account without history in the kept window answers 404, but so does an instance that
        does not know of it yet: believing that one would skip payments.

        An account that is not on the ledger either can have been paid nothing: what funds it is its
        first payment, and would be its history. (Horizon forgets an account only with the last of
        its history, and what is after `after` is kept: one that was merged away answers 200.) So
        the 404 says what an empty page says, no less and no more: an instance that lags says it,
        too. It is marked, and claims the tip only for who believes an empty page not before it has
        been one for `overlap_s`.
        """
        try:
            document = await self._server.accounts().account_id(account).call()
        except HorizonUnavailable as error:
            if error.reason != NOT_FOUND:
                raise
            return replace(Page.of([], after, root), unfunded=True)
        if not is_untouched_since(document, after):
            raise HorizonUnavailable(NOT_FOUND, f"no history of {account}, but it has changed")
        return Page.of([], after, root)

    def connect(self, account: str, after: Position, noted: Noted = lambda raw: raw) -> Arrivals:
        """Open the stream of what comes after a position; `noted` sees how it goes.

        Not by the builder's own `stream()`: that neither closes our generator nor lets it end.
        """
        query = self._payments(account, after)
        url = urljoin_with_query(query.horizon_url, query.endpoint)
        return Arrivals(noted(self._transport.stream(url, query.params)), PAGE_LIMIT)

    def _payments(self, account: str | None, after: Position) -> Any:
        query = self._server.payments().join("transactions")
        if account is not None:
            query = query.for_account(account)
        return query.cursor(int(after)).order(desc=False).limit(PAGE_LIMIT)

    async def position_at(self, moment: datetime) -> Position:
        """Find where to begin to read all that was closed at `moment` or later.

        Bisects the ledgers kept: about 25 requests.

        Raises:
            HorizonUnavailable: a ledger cannot be read.
            HistoryGap: the moment is before the oldest ledger kept.
        """
        root = await self.checked_root()
        if root.closed_at < moment:
            return root.tip
        low, high = root.elder, root.latest  # the first ledger not before `moment` is in here
        elder_at = await self.closed_at(low)
        if moment < elder_at and low > 2:
            raise HistoryGap(f"the oldest ledger kept is {low}, closed at {elder_at.isoformat()}")
        while low < high:
            middle = (low + high) // 2
            if await self.closed_at(middle) < moment:
                low = middle + 1
            else:
                high = middle
        return Position.after_ledger(low - 1)

    async def closed_at(self, ledger: int) -> datetime:
        """Tell when a ledger closed.

        Raises:
            HorizonUnavailable: it cannot be read.
        """
        document = await self._server.ledgers().ledger(ledger).call()
        try:
            return read_time(document, "closed_at")
        except RecordError as error:
            raise HorizonUnavailable("malformed", f"ledger {ledger}: {error}") from error

    async def ledger_hash(self, ledger: int) -> str | None:
        """Tell a ledger's hash, in hex; None if the instance has it no more or not yet.

        Raises:
            HorizonUnavailable: it cannot be read.
        """
        return await self._roots.ledger_hash(ledger)

    async def trace(self, tx_hash: str, watched: Container[str]) -> Trace:
        """Look a transaction up by its outer or inner hash: how it ended, and what it credits.

        Raises:
            InvalidInput: not a hash.
            HorizonUnavailable: try again.
            NetworkReset, WrongNetwork: do not go on here.
        """
        _require_hash(tx_hash)
        # The order matters: what is not there is absent only up to a tip that was read before.
        tip_closed_at = (await self.checked_root()).closed_at
        try:
            document = await self._server.transactions().transaction(tx_hash).call()
        except HorizonUnavailable as error:
            if error.reason != NOT_FOUND:
                raise
            return Trace(TxState.UNKNOWN, tip_closed_at)
        ending = TxEnding.parse(document, tx_hash)
        place = (ending.ledger, ending.closed_at)
        if not ending.is_successful:
            return Trace(TxState.FAILED, tip_closed_at, *place)
        records = await self._tx_records(tx_hash, watched)
        return Trace(TxState.SUCCEEDED, tip_closed_at, *place, records)

    async def _tx_records(self, tx_hash: str, watched: Container[str]) -> tuple[LedgerRecord, ...]:
        query = self._server.payments().for_transaction(tx_hash).join("transactions")
        return read_placed(read_records(await query.limit(PAGE_LIMIT).call()), watched)


def _require_hash(tx_hash: str) -> None:
    if not _HASH.fullmatch(tx_hash):
        raise InvalidInput("tx_hash", "must be 64 hexadecimal digits in lower case")

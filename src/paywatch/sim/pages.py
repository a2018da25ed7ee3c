"""Horizon's lists: the query, the rows that it selects, and the page around them.

After `internal/actions/helpers.go`, `internal/db2/page_query.go` and `support/render/hal`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, Literal
from urllib.parse import urlencode

from paywatch.sim.history import ClosedLedger, after_ledger, between, toid
from paywatch.sim.ledger import Ledger
from paywatch.sim.problems import Problem, bad_request, before_history
from paywatch.sim.records import JSON

DEFAULT_LIMIT: Final = 10
MAX_LIMIT: Final = 200
_MAX_INT64: Final = 2**63 - 1
_BOOLS: Final = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True", "on"), True),
    **dict.fromkeys(("", "0", "f", "F", "false", "FALSE", "False", "off"), False),
}


class View:
    """What one Horizon instance shows of a ledger.

    Args:
        ledger: the network's.
        lag: how many of the newest ledgers it has not ingested yet.
        elder: the oldest ledger that it keeps; None for all.

    Ledgers in `gaps` are not ingested yet, though newer ones are: an operator that fills a gap
    (`horizon db fill-gaps`) fills in behind everybody's cursor. So are rows whose ids are `hidden`,
    as before Horizon 28 single records could be. Accounts are always shown as they stand now.
    """

    def __init__(self, ledger: Ledger, *, lag: int = 0, elder: int | None = None) -> None:
        self.ledger = ledger
        self.lag = lag
        self.gaps: set[int] = set()
        self.hidden: set[int] = set()
        self._elder = elder

    @property
    def latest(self) -> ClosedLedger:
        """The newest ledger that it shows."""
        ledgers = self.ledger.history.ledgers
        return ledgers[max(0, len(ledgers) - 1 - self.lag)]

    @property
    def elder(self) -> int:
        """The number of the oldest ledger that it keeps."""
        first = self.ledger.history.ledgers[0].sequence
        return first if self._elder is None else max(first, self._elder)

    def keep_from(self, sequence: int) -> None:
        """Forget what is older than a ledger, as an instance with retention does."""
        self._elder = sequence

    def shows(self, row: Any) -> bool:
        """Whether a row within the bounds was ingested."""
        return row.id not in self.hidden and _first(row.id) >> 32 not in self.gaps

    @property
    def bounds(self) -> tuple[int, int]:
        """Positions below and above everything it shows, both exclusive."""
        return toid(self.elder) - 1, after_ledger(self.latest.sequence) + 1


@dataclass(frozen=True, slots=True)
class PageQuery:
    """The parameters of a list. The cursor is a position, with an order behind it for effects."""

    cursor: str
    order: Literal["asc", "desc"]
    limit: int
    include_failed: bool = False
    join: bool = False

    @classmethod
    def parse(
        cls, params: Mapping[str, str], view: View, last_event_id: str | None = None
    ) -> "PageQuery":
        """Read the parameters; a stream's `Last-Event-ID` goes before its cursor.

        Raises:
            Problem: 400, naming the field.
        """
        cursor = params.get("cursor", "")
        if cursor == "now":
            cursor = str(after_ledger(view.latest.sequence))
        cursor = last_event_id or cursor
        _position(cursor)
        order = params.get("order", "")
        if order not in {"", "asc", "desc"}:
            raise bad_request("order", "order: invalid value")
        join, failed = params.get("join", ""), params.get("include_failed", "")
        if join not in {"", "transactions"}:
            raise bad_request("join", "Accepted values: transactions")
        if failed not in _BOOLS:
            raise bad_request("include_failed", "Filter should be true or false")
        return cls(
            cursor, "desc" if order == "desc" else "asc", _limit(params), _BOOLS[failed], bool(join)
        )

    def after(self, cursor: str) -> "PageQuery":
        """The same query from another cursor on."""
        return replace(self, cursor=cursor)


@dataclass(frozen=True, slots=True)
class Listing:
    """A list that can be paged and streamed: rows sorted by id, and how each is written.

    Args:
        rows: the rows as they are now; asked again for every page.
        write: a row as JSON, with its transaction joined or not.
        token: a row's paging token.
        wanted: which rows are shown, given `include_failed`.
        pairs: whether a row's id is a pair (effects).
    """

    rows: Callable[[], Sequence[Any]]
    write: Callable[[Any, bool], JSON]
    token: Callable[[Any], str]
    wanted: Callable[[Any, bool], bool] = lambda _row, _failed: True
    pairs: bool = False

    def page(self, query: PageQuery, view: View) -> list[tuple[str, JSON]]:
        """Token and record of each row of a page.

        Raises:
            Problem: 410 for a descending query that begins before the history kept. An ascending
                one is moved to its beginning, silently.
        """
        descending, (low, high) = query.order == "desc", view.bounds
        cursor = self._bound(query)
        if cursor is not None and _first(cursor) <= toid(view.elder) and descending:
            raise before_history()
        lower, upper = self._key(low, last=True), self._key(high)
        if cursor is not None and descending:
            upper = min(upper, cursor)
        elif cursor is not None:
            lower = max(lower, cursor)
        found = between(self.rows(), lower, upper, descending=descending)
        shown = (row for row in found if view.shows(row) and self.wanted(row, query.include_failed))
        return self._written(islice(shown, query.limit), join=query.join)

    def replay(self, query: PageQuery, view: View, count: int) -> list[tuple[str, JSON]]:
        """The last rows up to an ascending query's cursor, again, in order."""
        if not query.cursor or query.order == "desc":
            return []
        try:
            before = replace(query, cursor=_behind(query.cursor), order="desc", limit=count)
            return self.page(before, view)[::-1]
        except Problem:
            return []  # nothing is kept before it

    def _written(self, rows: Iterable[Any], *, join: bool) -> list[tuple[str, JSON]]:
        return [(self.token(row), self.write(row, join)) for row in rows]

    def _bound(self, query: PageQuery) -> Any:
        if not query.cursor:
            return None
        position = _position(query.cursor)
        return position if self.pairs else position[0]

    def _key(self, position: int, *, last: bool = False) -> Any:
        return (position, _MAX_INT64 if last else 0) if self.pairs else position


def hal_page(
    records: Sequence[tuple[str, JSON]], query: PageQuery, url: str, params: Mapping[str, str]
) -> JSON:
    """A page with its links; `url` is the list's without parameters."""
    base = {**params, "cursor": query.cursor, "order": query.order, "limit": str(query.limit)}
    last = records[-1][0] if records else query.cursor
    first = records[0][0] if records else query.cursor
    other = "asc" if query.order == "desc" else "desc"

    def href(**changed: str) -> JSON:
        return {"href": f"{url}?{urlencode(sorted({**base, **changed}.items()))}"}

    return {
        "_links": {
            "self": href(),
            "next": href(cursor=last),
            "prev": href(order=other, cursor=first),
        },
        "_embedded": {"records": [record for _, record in records]},
    }


def _position(cursor: str) -> tuple[int, int]:
    """A cursor's two numbers; one alone stands behind everything of that position."""
    if not cursor:
        return (0, 0)
    first, dash, second = cursor.partition("-")
    numbers = (first, second) if dash else (first, str(_MAX_INT64))
    if not all(n.isascii() and n.isdigit() and int(n) <= _MAX_INT64 for n in numbers):
        raise bad_request("cursor", "cursor: invalid value")
    return int(numbers[0]), int(numbers[1])


def _behind(cursor: str) -> str:
    """The cursor whose descending page begins with the row of this one."""
    first, dash, second = cursor.partition("-")
    return f"{first}-{int(second) + 1}" if dash else str(int(first) + 1)


def _first(cursor: Any) -> int:
    return int(cursor[0] if isinstance(cursor, tuple) else cursor)


def _limit(params: Mapping[str, str]) -> int:
    text = params.get("limit", "")
    if not text:
        return DEFAULT_LIMIT
    try:
        limit = int(text) if text.isascii() else 0
    except ValueError:
        raise bad_request("limit", "unparseable value") from None
    if limit <= 0:
        raise bad_request("limit", "invalid limit: non-positive value provided")
    if limit > MAX_LIMIT:
        over = f"invalid limit: value provided that is over limit max of {MAX_LIMIT}"
        raise bad_request("limit", over)
    return limit

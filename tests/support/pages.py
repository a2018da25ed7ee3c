"""A Horizon to page through: what is on its ledger, and what happens while it is asked."""

from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass, field

from paywatch.domain.announcement import Trace, TxState
from paywatch.domain.ledger import Batch, Credit, LedgerRecord, Position
from paywatch.errors import HorizonUnavailable
from support import ACCOUNT, batch_of, closing, make_batch

TIP = Position.after_ledger(2000)


@dataclass
class Pages:
    """Serves the operations of these credits, and `others` that credit nobody, as Horizon does.

    Attributes:
        size: operations on a page.
        away: accounts that it cannot be asked about.
        meanwhile: happens while a page is being read.
        traces: what it says of transactions, by hash; of any other, that it is unknown.
        asked: by account and position, in order.
        traced: the hashes that were looked up, in order.
    """

    credits: list[Credit] = field(default_factory=list)
    others: list[LedgerRecord] = field(default_factory=list)
    size: int = 200
    tip: Position = TIP
    away: set[str] = field(default_factory=set)
    meanwhile: Callable[[Position], Awaitable[None]] | None = None
    traces: dict[str, Trace | Exception] = field(default_factory=dict)
    asked: list[tuple[str, Position]] = field(default_factory=list)
    traced: list[str] = field(default_factory=list)

    async def page(self, account: str, after: Position) -> Batch:
        self.asked.append((account, after))
        if self.meanwhile is not None:
            await self.meanwhile(after)
        if account in self.away:
            raise HorizonUnavailable("timeout", "no answer in time")
        mine = [c for c in self.credits if c.account == account]
        all_records = (*(make_batch(mine).records if mine else ()), *self.others)
        records = sorted(
            (r for r in all_records if r.operation_id > after), key=lambda r: r.operation_id
        )
        if not records:
            return batch_of([], after, max(after, self.tip))
        return batch_of(records[: self.size], after)

    async def trace(self, tx_hash: str, watched: Container[str]) -> Trace:
        assert ACCOUNT in watched
        self.traced.append(tx_hash)
        found = self.traces.get(tx_hash, Trace(TxState.UNKNOWN, closing(self.tip.ledger)))
        if isinstance(found, Exception):
            raise found
        return found

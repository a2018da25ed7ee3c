"""A Horizon to audit against: the pages of `Pages`, for an account or for everybody."""

from collections.abc import Callable, Container
from dataclasses import dataclass, field

from paywatch.domain.ledger import Batch, LedgerRecord, Position
from support import batch_of, make_batch
from support.pages import Pages


@dataclass
class AuditPages:
    """What `pages` has.

    Attributes:
        pages: whose `credits`, `others`, `size`, `tip`, `away` and `meanwhile` may be changed.
        altered: what becomes of the nth page (from 1) before it is handed out.
    """

    pages: Pages = field(default_factory=Pages)
    altered: Callable[[int, Batch], Batch] = lambda _, batch: batch
    asked: list[tuple[str | None, Position]] = field(default_factory=list)

    async def tip(self) -> Position:
        return self.pages.tip

    async def page(self, account: str, after: Position) -> Batch:
        self.asked.append((account, after))
        return self.altered(len(self.asked), await self.pages.page(account, after))

    async def network_page(self, watched: Container[str], after: Position) -> Batch:
        self.asked.append((None, after))
        if self.pages.meanwhile is not None:
            await self.pages.meanwhile(after)
        ours = [c for c in self.pages.credits if c.account in watched]
        records: list[LedgerRecord] = [*(make_batch(ours).records if ours else ())]
        records = sorted([*records, *self.pages.others], key=lambda record: record.operation_id)
        new = [record for record in records if record.operation_id > after]
        page = new[: self.pages.size]
        batch = batch_of(page, after) if page else batch_of([], after, max(after, self.pages.tip))
        return self.altered(len(self.asked), batch)

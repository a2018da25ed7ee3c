"""A progress bar for backfills and audits, on a terminal only."""

import sys
from collections.abc import Callable, Container, Sequence
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from paywatch.domain.ledger import Batch, Position
from paywatch.service.audit import NETWORK, AuditSource


class ShownPages:
    """A source of pages that shows on stderr how far they have come.

    Args:
        source: where the pages come from.
        spans: account (or NETWORK) and begin of each span, in the order they are read.
        upto: where they all end.
        requests_left: tells how many requests the budget has left.
    """

    def __init__(
        self,
        source: AuditSource,
        spans: Sequence[tuple[str, Position]],
        upto: Position,
        requests_left: Callable[[], int],
    ) -> None:
        self._source = source
        self._upto = upto
        self._requests_left = requests_left
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %  ledger {task.fields[ledger]}"),
            TextColumn("{task.fields[rate]:.0f} op/s"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[requests_left]} requests left"),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._tasks: dict[str, TaskID] = {
            account: self._bar.add_task(
                account if account == NETWORK else f"{account[:4]}…{account[-4:]}",
                total=max(1, upto.ledger - after.ledger),
                start=False,
                ledger=after.ledger,
                rate=0.0,
                requests_left=requests_left(),
            )
            for account, after in spans
        }
        self._began = {account: after.ledger for account, after in spans}
        self._read = dict.fromkeys(self._began, 0)

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave it as it is."""
        self._bar.stop()

    async def tip(self) -> Position:
        """Give the source's own."""
        return await self._source.tip()

    async def page(self, account: str, after: Position) -> Batch:
        """Read one page; see `PageSource`."""
        self._bar.start_task(self._tasks[account])
        return self._show(account, await self._source.page(account, after))

    async def network_page(self, watched: Container[str], after: Position) -> Batch:
        """Read one page of everybody's; see `AuditSource`."""
        self._bar.start_task(self._tasks[NETWORK])
        return self._show(NETWORK, await self._source.network_page(watched, after))

    def _show(self, account: str, batch: Batch) -> Batch:
        task = self._tasks[account]
        ledger = min(batch.upto, self._upto).ledger
        self._read[account] += batch.read
        elapsed_s = self._bar.tasks[task].elapsed
        self._bar.update(
            task,
            completed=ledger - self._began[account],
            ledger=ledger,
            rate=self._read[account] / elapsed_s if elapsed_s else 0.0,
            requests_left=self._requests_left(),
        )
        return batch

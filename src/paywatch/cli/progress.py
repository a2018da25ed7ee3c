"""A progress bar for backfills, on a terminal only."""

import sys
from collections.abc import Sequence
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from paywatch.domain.ledger import Batch, Position
from paywatch.service.backfill import PageSource


class ShownPages:
    """A source of pages that shows on stderr how far they have come.

    Args:
        source: where the pages come from.
        spans: account and begin of each backfill, in the order they are done.
        upto: where they all end.
    """

    def __init__(
        self, source: PageSource, spans: Sequence[tuple[str, Position]], upto: Position
    ) -> None:
        self._source = source
        self._upto = upto
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %  ledger {task.fields[ledger]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._tasks: dict[str, TaskID] = {
            account: self._bar.add_task(
                f"{account[:4]}…{account[-4:]}",
                total=max(1, upto.ledger - after.ledger),
                ledger=after.ledger,
            )
            for account, after in spans
        }
        self._began = {account: after.ledger for account, after in spans}

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave it as it is."""
        self._bar.stop()

    async def page(self, account: str, after: Position) -> Batch:
        """Read one page; see `PageSource`."""
        batch = await self._source.page(account, after)
        ledger = min(batch.upto, self._upto).ledger
        self._bar.update(
            self._tasks[account], completed=ledger - self._began[account], ledger=ledger
        )
        return batch

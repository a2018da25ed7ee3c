"""The progress bar of a backfill, on a terminal and without one."""

import io
import sys

import pytest

from paywatch.cli.progress import ShownPages
from paywatch.domain.ledger import Batch, Position
from paywatch.service.audit import NETWORK
from support import ACCOUNT
from support.audits import AuditPages


class Terminal(io.StringIO):
    def __init__(self, *, is_one: bool) -> None:
        super().__init__()
        self.is_one = is_one

    def isatty(self) -> bool:
        return self.is_one


class Pages(AuditPages):
    async def page(self, account: str, after: Position) -> Batch:
        assert account == ACCOUNT
        return Batch((), after, Position.after_ledger(after.ledger + 30), None, 200)


async def shown(monkeypatch: pytest.MonkeyPatch, *, on_a_terminal: bool) -> str:
    stderr = Terminal(is_one=on_a_terminal)
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    begin, end = Position.after_ledger(100), Position.after_ledger(140)
    with ShownPages(Pages(), [(ACCOUNT, begin)], end, lambda: 57) as pages:
        batch = await pages.page(ACCOUNT, begin)
        assert (await pages.page(ACCOUNT, batch.upto)).upto > end
    return stderr.getvalue()


async def test_it_shows_the_ledger_the_way_the_rate_and_the_requests_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = await shown(monkeypatch, on_a_terminal=True)
    last = text.splitlines()[-2]  # the last line brings the cursor back
    assert "100 %" in last
    assert "ledger 140" in last, "the end of the range, not of the page"
    assert "op/s" in last
    assert "57 requests left" in last


async def test_without_a_terminal_it_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await shown(monkeypatch, on_a_terminal=False) == ""


async def test_it_shows_the_reading_of_everybodys_payments_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stderr = Terminal(is_one=True)
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")
    source, begin = AuditPages(), Position.after_ledger(100)
    with ShownPages(source, [(NETWORK, begin)], await source.tip(), lambda: 57) as pages:
        assert await pages.tip() == await source.tip()
        await pages.network_page({ACCOUNT}, begin)
    assert "network" in stderr.getvalue()
    assert "100 %" in stderr.getvalue()

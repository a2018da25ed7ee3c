"""What the live stream does with what pages and connections bring, without any of them."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from stellar_sdk import Keypair

from paywatch.domain.ledger import Batch, Position
from paywatch.errors import HorizonUnavailable
from paywatch.horizon import live
from paywatch.horizon.arrivals import Arrivals
from paywatch.horizon.documents import Root
from paywatch.horizon.live import AccountStream
from paywatch.horizon.pages import Page
from paywatch.horizon.reconnects import Reconnects
from paywatch.horizon.timing import Timing

SHOP = Keypair.from_raw_ed25519_seed(b"\1" * 32).public_key
PAYER = Keypair.from_raw_ed25519_seed(b"\2" * 32).public_key
START = Position.after_ledger(10)
CLOSED_AT = datetime(2026, 8, 1, 10, tzinfo=UTC)
QUIET = Timing(reconcile_s=3600.0, overlap_s=0.0, backoff_base_s=0.0)


def op(ledger: int, **fields: Any) -> dict[str, Any]:
    token = str(Position.of(ledger, 1, 1))
    return {
        "id": token,
        "paging_token": token,
        "transaction_successful": True,
        "type": "payment",
        "created_at": "2026-08-01T10:00:00Z",
        "transaction_hash": "aa" * 32,
        "asset_type": "native",
        "from": PAYER,
        "to": SHOP,
        "amount": f"{ledger}.0",
        "transaction": {"hash": "aa" * 32, "memo_type": "none"},
    } | fields


class Horizon:
    """A ledger of one operation per ledger, and streams as somebody wrote them down."""

    def __init__(self, *streams: list[dict[str, Any] | Exception]) -> None:
        self.tip = 10
        self.ledger: list[dict[str, Any]] = []
        self.streams = list(streams)
        self.connected_at: list[Position] = []
        self.pages = 0
        self.limit = 200
        self.hidden = 0  # ledgers at the tip that the instance which serves pages lacks

    def close(self, *operations: dict[str, Any]) -> None:
        self.ledger += operations
        self.tip = max([self.tip, *(Position(o["id"]).ledger for o in operations)])

    async def read_page(self, account: str, after: Position) -> Page:
        assert account == SHOP
        self.pages += 1
        end = Position.after_ledger(self.tip - self.hidden)
        found = [o for o in self.ledger if after < Position(o["id"]) <= end][: self.limit]
        page = Page.of(found, after, Root("net", self.tip, CLOSED_AT, 1))
        return replace(page, is_full=len(found) == self.limit)

    def connect(self, account: str, after: Position) -> Arrivals:
        assert account == SHOP
        self.connected_at.append(after)
        return Arrivals(self._stream(self.streams.pop(0) if self.streams else []), 200)

    async def _stream(
        self, script: list[dict[str, Any] | Exception]
    ) -> AsyncGenerator[dict[str, Any], None]:
        for item in script:
            if isinstance(item, Exception):
                raise item
            yield item
        await asyncio.Event().wait()


async def read(
    horizon: Horizon,
    enough: Callable[[list[Batch]], bool],
    timing: Timing = QUIET,
    reasons: list[str] | None = None,
) -> list[Batch]:
    said = reasons if reasons is not None else []
    reconnects = Reconnects(SHOP, timing, random.Random(1), said.append, asyncio.sleep)
    stream = AccountStream(horizon, SHOP, START, timing, reconnects)
    found: list[Batch] = []
    async with asyncio.timeout(10), aclosing(stream.batches()) as batches:
        async for batch in batches:
            assert batch.after == (found[-1].upto if found else START)
            found.append(batch)
            if enough(found):
                break
    return found


def ledgers(batches: list[Batch]) -> list[int]:
    return [record.operation_id.ledger for batch in batches for record in batch.records]


CUT = HorizonUnavailable("cut", "test")


async def test_a_record_that_the_stream_skipped_comes_with_the_page() -> None:
    horizon = Horizon([op(11), op(13), CUT])

    def then_all(found: list[Batch]) -> bool:
        if len(found) == 1:  # the stream is read next; the ledger has more than it shows
            horizon.close(op(11), op(12), op(13), op(14))
        return found[-1].upto >= Position.of(14, 1, 1)

    found = await read(horizon, then_all)
    assert ledgers(found) == [11, 13, 12, 14]
    early = found[1]
    assert early.after == early.upto == START
    assert early.closed_at is None
    assert [record.operation_id.ledger for record in found[-1].records] == [12, 14]
    assert found[-1].read == 2


async def test_replays_and_older_records_are_dropped() -> None:
    horizon = Horizon([op(12), op(12), op(11), op(9), op(13), CUT])
    horizon.close(op(11))
    reasons: list[str] = []

    def then_all(found: list[Batch]) -> bool:
        if len(found) == 1:
            horizon.close(op(12), op(13))
        return "cut" in reasons and found[-1].upto >= Position.of(13, 1, 1)

    found = await read(horizon, then_all, reasons=reasons)
    assert ledgers(found) == [11, 12, 13]


async def test_a_record_that_cannot_be_read_waits_for_the_page() -> None:
    broken = op(11, amount="?")
    horizon = Horizon([broken, op(12), CUT])

    def then_all(found: list[Batch]) -> bool:
        if len(found) == 1:
            horizon.close(broken, op(12))
        return found[-1].upto >= Position.of(12, 1, 1)

    found = await read(horizon, then_all)
    assert ledgers(found) == [12, 11]
    assert [record.problem is None for batch in found for record in batch.records] == [True, False]


async def test_a_page_that_lacks_what_the_stream_showed_is_not_believed() -> None:
    horizon = Horizon([op(11), CUT], [op(11), op(12), CUT])
    reasons: list[str] = []

    def then_all(found: list[Batch]) -> bool:
        if ledgers(found) == [11]:
            horizon.tip = 12  # the root is ahead, the pages still lack both ledgers
        if horizon.pages == 2:
            horizon.close(op(11), op(12))
        return found[-1].upto >= Position.of(12, 1, 1)

    async def lag(account: str, after: Position) -> Page:
        page = await Horizon.read_page(horizon, account, after)
        if horizon.pages == 3:
            horizon.close(op(11), op(12))
        return page

    horizon.read_page = lag  # type: ignore[method-assign]  # the pages catch up in between
    found = await read(horizon, then_all, reasons=reasons)
    assert "behind" in reasons
    assert ledgers(found) == [11, 12]


@pytest.mark.parametrize("streamed", [[], [op(11)]])
async def test_an_empty_page_of_an_instance_that_lags_loses_no_payment(
    streamed: list[dict[str, Any] | Exception],
) -> None:
    """Another instance behind the same address told the tip, which the page claims to reach."""
    horizon = Horizon(streamed)
    horizon.close(op(11))
    horizon.hidden = 1

    def then_caught_up(found: list[Batch]) -> bool:
        if len(found) > 2:
            horizon.hidden = 0
        return found[-1].upto >= Position.of(11, 1, 1)

    timing = replace(QUIET, reconcile_s=0.0, overlap_s=3600.0)
    found = await read(horizon, then_caught_up, timing)
    assert ledgers(found) == [11]
    assert {batch.upto for batch in found[:-1]} == {START}, "and not by a crash before, either"


async def test_a_quiet_account_is_read_up_to_a_tip_that_has_been_claimed_for_long_enough() -> None:
    horizon = Horizon()
    timing = replace(QUIET, reconcile_s=0.0, overlap_s=0.05)

    def then_moved(found: list[Batch]) -> bool:
        horizon.tip += 1
        return found[-1].upto > START

    found = await read(horizon, then_moved, timing)
    assert found[-1].upto < Position.after_ledger(horizon.tip - 1), "not to what it has just heard"
    assert {batch.closed_at for batch in found} == {CLOSED_AT}, "no deadline waits for it"


async def test_an_early_record_is_not_repeated_by_the_next_connection() -> None:
    """The page lags without contradiction: its tip is before what the stream has shown."""
    horizon = Horizon([op(12), CUT], [op(12), op(13)])
    found = await read(horizon, lambda batches: len(ledgers(batches)) == 2)
    assert ledgers(found) == [12, 13]
    assert {batch.upto for batch in found} == {START}


async def test_lesson_17_pages_follow_pages_before_a_stream_is_opened() -> None:
    horizon = Horizon()
    horizon.limit = 2
    horizon.close(*(op(ledger) for ledger in range(11, 16)))
    connections = []

    def then_all(found: list[Batch]) -> bool:
        connections.append(len(horizon.connected_at))
        return len(ledgers(found)) == 5

    found = await read(horizon, then_all)
    assert [len(batch.records) for batch in found] == [2, 2, 1]
    assert connections == [0, 0, 1]
    assert horizon.connected_at == [Position.of(15, 1, 1)]
    assert found[-1].closed_at == CLOSED_AT


async def test_a_page_is_read_when_the_time_has_come_though_the_stream_is_open() -> None:
    horizon = Horizon()

    def then_all(found: list[Batch]) -> bool:
        horizon.close(op(11))  # and the stream says nothing
        return ledgers(found) == [11]

    await read(horizon, then_all, Timing(reconcile_s=0.01))
    assert len(horizon.connected_at) == 1


async def test_a_record_without_a_place_ends_the_connection_not_the_reader() -> None:
    reasons: list[str] = []
    horizon = Horizon([op(11), op(12, paging_token="?"), op(13)])

    def then_all(found: list[Batch]) -> bool:
        if len(found) == 1:
            horizon.close(op(11), op(12), op(13))
        return found[-1].upto >= Position.of(13, 1, 1)

    found = await read(horizon, then_all, reasons=reasons)
    assert reasons == ["malformed"]
    assert sorted(ledgers(found)) == [11, 12, 13]


async def test_what_was_not_confirmed_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_UNCONFIRMED", 3)
    reasons: list[str] = []
    horizon = Horizon([op(ledger) for ledger in range(11, 15)])

    def then_all(found: list[Batch]) -> bool:
        if found[-1].records:
            horizon.close(*(op(ledger) for ledger in range(11, 16)))
        return found[-1].upto >= Position.of(15, 1, 1)

    found = await read(horizon, then_all, reasons=reasons)
    assert reasons == ["behind"]
    assert ledgers(found) == [11, 12, 13, 14, 15]


async def test_a_defect_in_the_stream_is_raised_not_waited_for() -> None:
    horizon = Horizon([op(11), ZeroDivisionError("a bug")])
    with pytest.raises(ZeroDivisionError):
        await read(horizon, lambda _: False)


async def test_read_ahead_is_bounded() -> None:
    sent = 0

    async def endless() -> AsyncGenerator[dict[str, Any], None]:
        nonlocal sent
        while True:
            sent += 1
            yield {"n": sent}

    arrivals = Arrivals(endless(), 10)
    until = asyncio.get_running_loop().time() + 10
    first = await arrivals.take(until)
    assert [item["n"] for item in first] == list(range(1, 11))
    for _ in range(20):
        await asyncio.sleep(0)
    assert sent <= 10 + 10 + 1  # handed out, queued, and one in the task's hand
    await arrivals.close()

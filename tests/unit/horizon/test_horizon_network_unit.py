"""What the reader of the whole network makes of its pages, and how far it believes them."""

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from stellar_sdk import Keypair

from paywatch.domain.ledger import Batch, Position
from paywatch.errors import HistoryGap, HorizonUnavailable
from paywatch.horizon.claims import Claims
from paywatch.horizon.documents import Root
from paywatch.horizon.network import NetworkStream
from paywatch.horizon.pages import Page
from paywatch.horizon.reconnects import Reconnects
from paywatch.horizon.timing import Timing

SHOP, OTHER, STRANGER, PAYER = (
    Keypair.from_raw_ed25519_seed(bytes([n]) * 32).public_key for n in range(1, 5)
)
START = Position.after_ledger(10)
CLOSED_AT = datetime(2026, 8, 1, 10, tzinfo=UTC)
TIMING = Timing(poll_s=4.0, overlap_s=60.0, backoff_base_s=0.0)


def op(ledger: int, to: str = SHOP, tx: int = 1) -> dict[str, Any]:
    token = str(Position.of(ledger, tx, 1))
    return {
        "id": token,
        "paging_token": token,
        "transaction_successful": True,
        "type": "payment",
        "created_at": "2026-08-01T10:00:00Z",
        "transaction_hash": "aa" * 32,
        "asset_type": "native",
        "from": PAYER,
        "to": to,
        "amount": "1.0",
        "transaction": {"hash": "aa" * 32, "memo_type": "none"},
    }


@dataclass
class Network:
    """Pages of two operations; `sleeps` are the waits that were asked for, none of them made."""

    ledger: list[dict[str, Any]]
    errors: list[Exception] = field(default_factory=list)
    tip: int = 20
    asked: list[Position] = field(default_factory=list)
    sleeps: list[float] = field(default_factory=list)

    async def read_page(self, account: str | None, after: Position) -> Page:
        assert account is None
        self.asked.append(after)
        if self.errors:
            raise self.errors.pop(0)
        found = [o for o in self.ledger if Position(o["id"]) > after][:2]
        return Page.of(found, after, Root("net", self.tip, CLOSED_AT, 1), limit=2)

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)

    async def read(
        self,
        enough: Callable[[list[Batch]], bool],
        watched: Callable[[], set[str]] = lambda: {SHOP, OTHER},
        timing: Timing = TIMING,
    ) -> list[Batch]:
        reconnects = Reconnects("network", timing, random.Random(1), lambda _: None, self.sleep)
        stream = NetworkStream(self, watched, START, timing, reconnects)
        found: list[Batch] = []
        async with asyncio.timeout(10), aclosing(stream.batches()) as batches:
            async for batch in batches:
                assert batch.after == (found[-1].upto if found else START)
                found.append(batch)
                if enough(found):
                    return found
        raise AssertionError


def paid(batches: list[Batch]) -> list[str]:
    return [c.account for batch in batches for record in batch.records for c in record.credits]


async def test_the_credits_of_the_watched_are_kept_and_everybody_is_counted() -> None:
    network = Network([op(11), op(11, STRANGER, 2), op(12, OTHER), op(13, STRANGER), op(14)])
    found = await network.read(lambda batches: len(batches) == 4)
    assert paid(found) == [SHOP, OTHER, SHOP]
    assert [batch.read for batch in found] == [2, 2, 1, 0]
    assert [batch.upto.ledger for batch in found] == [11, 13, 14, 14]


async def test_full_pages_are_read_without_a_pause_and_the_end_is_looked_at_again_later() -> None:
    network = Network([op(11), op(12), op(13)])
    await network.read(lambda batches: len(batches) == 4)
    assert network.sleeps == [pytest.approx(4.0, abs=0.5)] * 2, "after the short and the empty one"


async def test_an_account_added_while_a_page_is_read_is_looked_for_on_that_page() -> None:
    watched = {SHOP}
    network = Network([op(11, OTHER)])
    asked = network.read_page

    async def meanwhile(account: str | None, after: Position) -> Page:
        watched.add(OTHER)
        return await asked(account, after)

    network.read_page = meanwhile  # type: ignore[method-assign]
    assert paid(await network.read(lambda _: True, lambda: watched)) == [OTHER]


async def test_an_absent_horizon_is_asked_again_and_loses_nothing() -> None:
    network = Network([op(11), op(12)], [HorizonUnavailable("timeout", "late")] * 3)
    timing = replace(TIMING, backoff_base_s=0.001)
    found = await network.read(lambda batches: bool(paid(batches)), timing=timing)
    assert all(batch.says_nothing for batch in found[:-1])
    assert network.asked == [START] * 4


async def test_a_gap_ends_it() -> None:
    with pytest.raises(HistoryGap):
        await Network([], [HistoryGap()]).read(lambda _: False)


async def test_an_empty_page_moves_it_only_to_a_tip_that_was_claimed_long_enough_ago() -> None:
    network = Network([])
    found = await network.read(lambda batches: len(batches) == 3)
    assert {batch.upto for batch in found} == {START}
    assert {batch.closed_at for batch in found} == {CLOSED_AT}, "no deadline waits for it"
    timing = replace(TIMING, overlap_s=0.0)
    found = await network.read(lambda batches: batches[-1].upto > START, timing=timing)
    assert found[-1].upto == Position.after_ledger(20)


async def test_what_empty_pages_claimed_is_void_once_a_record_shows_that_they_lacked_it() -> None:
    claims = Claims(START, overlap_s=0.0)
    late = Claims(START, overlap_s=3600.0)
    empty = Page.of([], START, Root("net", 12, CLOSED_AT, 1))
    assert late.believe(empty) == START
    assert late.believe(Page.of([op(11)], START, Root("net", 12, CLOSED_AT, 1))).ledger == 11
    late._overlap_s = 0.0
    behind = Page.of([], late.position, Root("net", 11, CLOSED_AT, 1))
    assert late.believe(behind) == Position.after_ledger(11), "not 12, which was claimed before"
    assert claims.believe(empty) == Position.after_ledger(12)

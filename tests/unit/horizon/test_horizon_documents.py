"""What roots, pages, waits and captures mean."""

import asyncio
import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from paywatch.domain.ledger import Position
from paywatch.errors import (
    HistoryGap,
    HorizonUnavailable,
    InvalidInput,
    NetworkReset,
    WrongNetwork,
)
from paywatch.horizon.capture import read_capture
from paywatch.horizon.documents import Root, TxEnding, is_untouched_since, read_records
from paywatch.horizon.pages import Page
from paywatch.horizon.reconnects import CLOSED, Reconnects
from paywatch.horizon.records import parse_record
from paywatch.horizon.timing import Backoff, Timing

GOLDEN = Path(__file__).parent / "golden"
CLOSED_AT = datetime(2026, 8, 1, 10, tzinfo=UTC)
ROOT = Root("net", latest=5000, closed_at=CLOSED_AT, elder=1000)
DOCUMENT = {
    "network_passphrase": "net",
    "history_latest_ledger": 5000,
    "history_latest_ledger_closed_at": "2026-08-01T10:00:00Z",
    "history_elder_ledger": 1000,
}


TX_HASH = "ab" * 32
TX = {
    "hash": TX_HASH,
    "successful": True,
    "ledger": 4999,
    "created_at": "2026-08-01T10:00:00Z",
}


def test_a_transactions_ending_is_read() -> None:
    assert TxEnding.parse(TX, TX_HASH) == TxEnding(True, 4999, CLOSED_AT)
    assert not TxEnding.parse(TX | {"successful": False}, TX_HASH).is_successful


@pytest.mark.parametrize(
    "fields",
    [
        {"successful": None},
        {"successful": "false"},
        {"successful": 1},
        {"hash": "cd" * 32},
        {"hash": None},
        {"ledger": "4999"},
        {"created_at": "yesterday"},
    ],
)
def test_a_transaction_that_cannot_be_believed_is_no_answer(fields: dict[str, Any]) -> None:
    with pytest.raises(HorizonUnavailable) as caught:
        TxEnding.parse(TX | fields, TX_HASH)
    assert caught.value.reason == "malformed"


def test_a_root_is_read() -> None:
    assert Root.parse(DOCUMENT) == ROOT
    assert ROOT.tip == Position.after_ledger(5000)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"history_latest_ledger": "5000"}, "malformed"),
        ({"history_latest_ledger": True}, "malformed"),
        ({"history_latest_ledger": 2**40}, "malformed"),
        ({"history_latest_ledger_closed_at": None}, "malformed"),
        ({"network_passphrase": 7}, "malformed"),
        ({"history_latest_ledger": 0, "history_elder_ledger": 0}, "not_ready"),
        ({"history_elder_ledger": 6000}, "not_ready"),
    ],
)
def test_a_root_that_cannot_be_believed(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(HorizonUnavailable) as caught:
        Root.parse(DOCUMENT | fields)
    assert caught.value.reason == reason


def test_history_must_reach_from_the_cursor_to_the_tip() -> None:
    ROOT.require_history(Position.after_ledger(999))
    ROOT.require_history(Position.of(1000, 1, 1))
    ROOT.require_history(Position.after_ledger(6000))  # lags
    with pytest.raises(HistoryGap, match="1000"):
        ROOT.require_history(Position.of(999, 7, 1))
    with pytest.raises(NetworkReset, match="5000"):
        ROOT.require_history(Position.after_ledger(6001))
    Root("net", 5000, CLOSED_AT, 2).require_history(Position(0))  # ledger 1 holds nothing
    with pytest.raises(WrongNetwork, match="other"):
        ROOT.require_network("other")


def test_fewer_ledgers_at_a_later_time_are_another_history() -> None:
    later, sooner = CLOSED_AT + timedelta(seconds=1), CLOSED_AT - timedelta(seconds=1)
    Root("net", 4999, sooner, 1).require_continuation_of(ROOT)  # lags
    Root("net", 5001, later, 1).require_continuation_of(ROOT)
    with pytest.raises(NetworkReset, match="4999"):
        Root("net", 4999, later, 1).require_continuation_of(ROOT)


def at(ledger: int, **fields: Any) -> dict[str, Any]:
    token = str(Position.of(ledger, 1, 1))
    return {"paging_token": token, "created_at": "2026-08-01T10:00:00Z"} | fields


def test_a_page_with_records_reaches_to_its_last_one() -> None:
    page = Page.of([at(4000), at(4001)], Position(5), ROOT)
    assert (page.upto, page.closed_at) == (Position.of(4001, 1, 1), CLOSED_AT)
    assert not page.is_full
    assert Page.of([at(n) for n in range(4000, 4200)], Position(5), ROOT).is_full


def test_an_empty_page_reaches_to_the_tip_if_that_is_ahead() -> None:
    page = Page.of([], Position.of(4000, 1, 1), ROOT)
    assert (page.upto, page.closed_at) == (ROOT.tip, CLOSED_AT)
    ahead = Position.of(5001, 1, 1)
    assert Page.of([], ahead, ROOT).upto == ahead
    assert Page.of([], ahead, ROOT).closed_at is None


@pytest.mark.parametrize(
    "records", [[at(4001), at(4000)], [at(4000), at(4000)], [at(3)], [at(3), at(4000)]]
)
def test_a_page_out_of_order_is_refused(records: list[dict[str, Any]]) -> None:
    with pytest.raises(HorizonUnavailable) as caught:
        Page.of(records, Position.of(3, 1, 1), ROOT)
    assert caught.value.reason == "order"


@pytest.mark.parametrize(
    "document",
    [{}, {"_embedded": []}, {"_embedded": {}}, {"_embedded": {"records": [{}] * 201}}],
)
def test_a_page_that_is_none_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(HorizonUnavailable) as caught:
        read_records(document)
    assert caught.value.reason == "malformed"


ANYTHING_ELSE: list[Any] = [{}, [], "x", None]


def test_a_page_with_a_record_without_a_place_is_refused() -> None:
    for record in ANYTHING_ELSE:
        with pytest.raises(HorizonUnavailable) as caught:
            Page.of([at(4000), record], Position(5), ROOT)
        assert caught.value.reason == "malformed"


@pytest.mark.parametrize(
    ("document", "untouched"),
    [
        ({"last_modified_ledger": 7}, True),
        ({"last_modified_ledger": 8}, False),
        ({"last_modified_ledger": 7, "balances": [{"last_modified_ledger": 7}, {}]}, True),
        ({"last_modified_ledger": 7, "balances": [{"last_modified_ledger": 8}]}, False),
        ({"last_modified_ledger": 7, "balances": [{"last_modified_ledger": "7"}]}, False),
        ({"balances": []}, False),
        ({}, False),
    ],
)
def test_an_account_is_untouched_only_if_its_entries_say_so(
    document: dict[str, Any], untouched: bool
) -> None:
    assert is_untouched_since(document, Position.after_ledger(7)) is untouched
    assert not is_untouched_since(document, Position.of(7, 1, 1))


def test_waits_grow_to_the_cap_and_begin_anew() -> None:
    class Longest(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return max(a, b)

    backoff = Backoff(Timing(backoff_base_s=1, backoff_cap_s=10), Longest())
    assert [backoff.next_wait_s(None) for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    assert backoff.next_wait_s(30) == 40
    backoff.reset()
    assert backoff.next_wait_s(10**9) == 3601


def test_a_goodbye_costs_a_wait_only_if_nothing_was_said_before() -> None:
    reasons: list[str] = []
    reconnects = Reconnects("G", Timing(), random.Random(1), reasons.append, asyncio.sleep)
    goodbye = HorizonUnavailable(CLOSED, "bye")
    reconnects.succeeded()
    assert list(reconnects.pauses(goodbye)) == []
    assert len(list(reconnects.pauses(goodbye))) == 1
    assert reasons == [CLOSED, CLOSED]


def test_a_long_wait_is_cut_into_pauses_that_a_watchdog_can_bear() -> None:
    reconnects = Reconnects("G", Timing(), random.Random(1), lambda _: None, asyncio.sleep)
    pauses = list(reconnects.pauses(HorizonUnavailable("status_429", "slow down", 3600)))
    assert max(pauses) == Timing().beat_s
    assert sum(pauses) >= 3600


RECORD = json.loads((GOLDEN / "0000000012884905985-create_account-joined.json").read_text())[
    "record"
]
LINE = json.dumps(RECORD).encode()


@pytest.mark.parametrize(
    "raw",
    [
        LINE,
        b"\n [" + LINE + b"]",
        b'{"_links": {}, "_embedded": {"records": [' + LINE + b"]}}",
        b'retry: 1000\nevent: open\ndata: "hello"\n\nid: 1\ndata: ' + LINE + b"\n\nid: 2\ndata: {",
    ],
    ids=["record", "list", "page", "stream"],
)
def test_a_capture_is_read_in_any_form(raw: bytes) -> None:
    (record,) = read_capture(raw)
    parsed = parse_record(record, {RECORD["account"]})
    assert parsed is not None
    assert parsed.credits[0].amount == 200_000_000


@pytest.mark.parametrize("raw", [b"", b"hello", b"[1]", b"{", b"data: x\n\n", b"\xff\xfe"])
def test_what_is_no_capture_is_said(raw: bytes) -> None:
    with pytest.raises(InvalidInput, match="capture"):
        read_capture(raw)

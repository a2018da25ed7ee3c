from collections.abc import Mapping
from typing import Any

import pytest
from stellar_sdk import Payment

from paywatch.sim.pages import Listing, PageQuery, View, hal_page
from paywatch.sim.problems import Problem, go_json
from paywatch.sim.wallet import NATIVE
from support.sim_town import Town


class Shelf:
    """The payments of a town, as a list."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.view = View(town.ledger)
        self.listing = Listing(
            rows=lambda: town.ledger.history.payments,
            write=lambda row, join: {"id": row.id, "join": join},
            token=lambda row: str(row.id),
            wanted=lambda row, failed: failed or row.tx.successful,
        )

    def ids(self, params: Mapping[str, str] | None = None) -> list[int]:
        query = PageQuery.parse(params or {}, self.view)
        return [record["id"] for _, record in self.listing.page(query, self.view)]

    def pay(self, *amounts: str) -> list[int]:
        """One payment a ledger; their positions."""
        alice, bob = self.town.alice, self.town.bob
        return [self.town.settle(alice.pay(bob.account_id, a)).id + 1 for a in amounts]


@pytest.fixture
def shelf(town: Town) -> Shelf:
    return Shelf(town)


def problem(shelf: Shelf, params: dict[str, str]) -> Problem:
    with pytest.raises(Problem) as caught:
        shelf.ids(params)
    return caught.value


def test_the_cursor_is_exclusive_in_both_directions(shelf: Shelf) -> None:
    first, second, third = shelf.pay("1", "2", "3")
    assert shelf.ids({"cursor": str(first)}) == [second, third]
    assert shelf.ids({"cursor": str(third), "order": "desc"})[:2] == [second, first]
    assert shelf.ids({"order": "desc", "limit": "2"}) == [third, second]


def test_a_page_may_end_in_the_middle_of_a_transaction(shelf: Shelf) -> None:
    three = [Payment(shelf.town.bob.account_id, NATIVE, "1")] * 3
    tx = shelf.town.settle(shelf.town.alice.build(three))
    assert shelf.ids({"cursor": str(tx.id), "limit": "2"}) == [tx.id + 1, tx.id + 2]
    assert shelf.ids({"cursor": str(tx.id + 2)}) == [tx.id + 3]


def test_ten_records_by_default_and_two_hundred_at_most(shelf: Shelf) -> None:
    ids = shelf.pay(*["1"] * 12)
    assert len(shelf.ids({"cursor": str(ids[0] - 1)})) == 10
    assert len(shelf.ids({"cursor": str(ids[0] - 1), "limit": "200"})) == 12


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("limit", "0"),
        ("limit", "201"),
        ("limit", "-1"),
        ("limit", "ten"),
        ("cursor", "-1"),
        ("cursor", "yesterday"),
        ("cursor", str(2**63)),
        ("order", "up"),
        ("join", "effects"),
        ("include_failed", "maybe"),
    ],
)
def test_an_unusable_parameter_is_a_bad_request_that_names_it(
    shelf: Shelf, field: str, value: str
) -> None:
    found = problem(shelf, {field: value})
    assert found.status == 400
    assert found.extras is not None
    assert found.extras["invalid_field"] == field


def test_failed_payments_are_shown_on_demand(shelf: Shelf) -> None:
    good, failed = shelf.pay("1", "999999")
    assert shelf.ids({"cursor": str(good - 1)}) == [good]
    assert shelf.ids({"cursor": str(good - 1), "include_failed": "true"}) == [good, failed]


def test_now_is_behind_everything_of_the_latest_ledger(shelf: Shelf) -> None:
    shelf.pay("1")
    query = PageQuery.parse({"cursor": "now"}, shelf.view)
    assert shelf.ids({"cursor": "now"}) == []
    latest = shelf.view.latest.sequence
    assert query.cursor == str((latest << 32) + 0xFFFFFFFF)
    later = shelf.pay("2")
    assert shelf.ids({"cursor": query.cursor}) == later


def test_an_ascending_cursor_before_the_elder_ledger_is_moved_silently(shelf: Shelf) -> None:
    first, second, third = shelf.pay("1", "2", "3")
    shelf.view.keep_from(second >> 32)
    assert shelf.ids({"cursor": str(first - 1)}) == [second, third]
    assert shelf.ids() == [second, third]
    assert problem(shelf, {"cursor": str(first), "order": "desc"}).status == 410
    assert shelf.ids({"order": "desc"}) == [third, second]


def test_a_lagging_instance_shows_an_empty_page_for_a_cursor_ahead_of_it(shelf: Shelf) -> None:
    first, second = shelf.pay("1", "2")
    shelf.view.lag = 1
    assert shelf.view.latest.sequence == first >> 32
    assert shelf.ids({"cursor": str(first)}) == []
    shelf.view.lag = 0
    assert shelf.ids({"cursor": str(first)}) == [second]


def test_a_hidden_record_appears_behind_the_cursor_later(shelf: Shelf) -> None:
    first, second, third = shelf.pay("1", "2", "3")
    shelf.view.hidden.add(second)
    assert shelf.ids({"cursor": str(first)}) == [third]
    shelf.view.hidden.clear()
    assert shelf.ids({"cursor": str(first)}) == [second, third]


def test_a_gap_of_a_ledger_is_filled_behind_the_cursor_later(shelf: Shelf) -> None:
    """As by `horizon db fill-gaps`: of that ledger nothing is there, though the tip is beyond."""
    first, second, third = shelf.pay("1", "2", "3")
    shelf.view.gaps.add(second >> 32)
    assert shelf.ids({"cursor": str(first)}) == [third]
    assert shelf.view.latest.sequence == third >> 32
    shelf.view.gaps.clear()
    assert shelf.ids({"cursor": str(first)}) == [second, third]


def test_a_replay_is_what_led_to_the_cursor(shelf: Shelf) -> None:
    _, second, third = shelf.pay("1", "2", "3")
    query = PageQuery.parse({"cursor": str(third)}, shelf.view)
    replayed = shelf.listing.replay(query, shelf.view, 2)
    assert [record["id"] for _, record in replayed] == [second, third]


def test_a_streams_last_event_id_goes_before_its_cursor(shelf: Shelf) -> None:
    query = PageQuery.parse({"cursor": "5"}, shelf.view, last_event_id="7")
    assert query.cursor == "7"


def test_links_of_a_page_lead_on_and_back() -> None:
    query = PageQuery("5", "asc", 2)
    records: list[tuple[str, dict[str, Any]]] = [("6", {}), ("8", {})]
    page = hal_page(records, query, "http://h/payments", {"cursor": "5", "join": "transactions"})
    links = {name: link["href"] for name, link in page["_links"].items()}
    assert links == {
        "self": "http://h/payments?cursor=5&join=transactions&limit=2&order=asc",
        "next": "http://h/payments?cursor=8&join=transactions&limit=2&order=asc",
        "prev": "http://h/payments?cursor=6&join=transactions&limit=2&order=desc",
    }
    assert list(page) == ["_links", "_embedded"]


def test_links_of_an_empty_page_stay_where_they_are() -> None:
    page = hal_page([], PageQuery("5", "asc", 10), "http://h/payments", {})
    assert page["_links"]["next"] == page["_links"]["self"]
    assert page["_embedded"] == {"records": []}


def test_json_is_escaped_as_go_does() -> None:
    assert go_json({"a": "<b> & ü\u2028"}) == '{"a":"\\u003cb\\u003e \\u0026 ü\\u2028"}'

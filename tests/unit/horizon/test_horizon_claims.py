"""How far empty pages move a position, when they come from several instances."""

from datetime import UTC, datetime

from paywatch.domain.ledger import Position
from paywatch.horizon.claims import Claims
from paywatch.horizon.documents import Root
from paywatch.horizon.pages import Page

CLOSED_AT = datetime(2026, 8, 1, 10, tzinfo=UTC)


def empty(after: Position, tip: int) -> Page:
    return Page.of([], after, Root("net", tip, CLOSED_AT, 1))


async def test_an_instance_that_lags_by_an_hour_confirms_nothing_beyond_its_own_tip() -> None:
    start = Position.after_ledger(50)
    claims = Claims(start, overlap_s=-1.0)  # believed at the next page
    claims._overlap_s = 1e9
    assert claims.believe(empty(start, 100)) == start
    claims._overlap_s = -1.0
    assert claims.believe(empty(start, 60)) == Position.after_ledger(60)
    assert claims.believe(empty(start, 40)) == Position.after_ledger(60), "and never moves it back"
    assert claims.believe(empty(start, 100)) == Position.after_ledger(100)

"""Listeners, recoveries, expiry, backfills, an audit, dispatchers and merchants, all at once."""

from collections.abc import AsyncIterator
from random import Random

import pytest

from support import Shop
from support.market import ENDS, WORD, Market
from support.races import Arena, processes


@pytest.fixture
async def arena(shop: Shop, database_url: str) -> AsyncIterator[Arena]:
    async with processes(database_url, 4) as pools:
        yield Arena(shop, database_url, pools)


@pytest.mark.parametrize("seed", range(6))
async def test_race_of_everybody_on_the_same_sessions(arena: Arena, seed: int) -> None:
    market = Market(arena, Random(seed))
    await market.open()
    await market.day()
    await market.evening()

    ends = await market.ends()
    assert {number for number, end in ends.items() if end not in ENDS[number]} == set(), ends
    outcomes = await market.outcomes()
    assert outcomes == market.expected_outcomes(ends, outcomes[WORD.name])
    assert await market.events() == market.expected_events(ends, outcomes)
    # Delivered, each by one id with one body.
    assert await arena.shop.rows("SELECT DISTINCT state FROM deliveries") == [("delivered",)]
    told = {str(row[0]) for row in await arena.shop.rows("SELECT id FROM events")}
    assert market.posted.keys() == told
    assert {len(bodies) for bodies in market.posted.values()} == {1}
    # Changed by the table, one cause after the other, whoever raced.
    steps = await arena.shop.rows(
        "SELECT muxed_id, array_agg(cause ORDER BY t.id) FROM session_transitions t"
        " JOIN checkout_sessions s ON s.id = session_id GROUP BY 1"
    )
    causes = dict(steps)
    assert causes[2] == ["credited_in_part", "credited_in_full"]
    assert causes[4] == ["credited_in_full"], "it never expired"
    assert causes[11] == ["announced", "untraced"]
    assert causes[12] == causes[13] == ["credited_in_full"]
    assert causes.get(14) is None
    assert await arena.shop.rows("SELECT count(*) FROM cursors") == [(1,)]
    assert arena.shop.metrics.registry.get_sample_value("paywatch_audit_mismatches") == 0

"""A day without any Horizon: who paid in time is served, who paid late is held.

The same with more payments, by a command: `make outage`.
"""

from random import Random

import pytest

from support.databases import open_cluster
from support.outages import open_outage


@pytest.mark.timeout(240)
async def test_after_a_day_without_horizon_everybody_is_judged_by_when_he_paid() -> None:
    with open_cluster() as cluster:
        async with open_outage(cluster, sessions=150, rng=Random(20_261_120)) as outage:
            figures = await outage.run()
    assert figures.wrong == []
    assert figures.late > 0

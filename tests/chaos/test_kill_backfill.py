"""A backfill that is killed at random points comes to the rows of one that nobody disturbed.

The same with many kills, by a command: `make backfill-kills`.
"""

from random import Random

import pytest

from support.backfills import open_trial
from support.databases import open_cluster


@pytest.mark.timeout(180)
async def test_backfills_killed_two_at_once_and_without_their_server_come_to_the_same_rows() -> (
    None
):
    with open_cluster() as cluster:
        async with open_trial(cluster, operations=500, rng=Random(20_261_120)) as trial:
            await trial.run_round(kills=2, at_once=2, kill_server=True)
    assert trial.figures.different == {}

"""Each thing that can befall a leader, once: nothing is lost, nothing is doubled.

How long it takes is not judged here: `make takeover` measures it.
"""

from random import Random

import pytest

from support.takeovers import Blow, open_rivals


@pytest.mark.timeout(240)
async def test_a_leader_is_killed_frozen_and_cut_off_and_every_payment_is_settled_once(
    database_url: str,
) -> None:
    async with open_rivals(database_url, Random(20_261_120)) as rivals:
        for blow in Blow:
            await rivals.strike(blow)
        await rivals.finish()

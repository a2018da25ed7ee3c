"""What is read ahead waits while something is computed, and never long."""

import asyncio

import pytest

from paywatch.service.lulls import Lulls

LONGEST_S = 20


async def test_who_waits_goes_on_when_all_have_computed() -> None:
    lulls = Lulls()
    with lulls.computing() as one, lulls.computing() as other:
        waiting = asyncio.create_task(lulls.wait())
        one()
        one()  # said twice, it counts once
        assert not lulls.is_now
        other()
        assert lulls.is_now
        async with asyncio.timeout(LONGEST_S):
            await waiting
    with lulls.computing():
        assert not lulls.is_now
    assert lulls.is_now, "a block that has ended counts no more"


async def test_whoever_fails_computes_no_more() -> None:
    lulls = Lulls()
    with pytest.raises(ZeroDivisionError), lulls.computing():
        1 / 0  # noqa: B018 - raises
    assert lulls.is_now


async def test_a_settlement_that_waits_for_a_lock_holds_nobody_up() -> None:
    lulls = Lulls()
    async with asyncio.timeout(LONGEST_S):
        with lulls.computing():
            await lulls.wait()
            assert not lulls.is_now

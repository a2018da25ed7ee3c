"""While Horizon is away the listener is at work: nobody may end it for that."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from random import Random

from paywatch.domain.ledger import Batch, Position
from paywatch.service.follow import Follower
from paywatch.service.listen import Listener
from paywatch.telemetry import Progress
from support import ACCOUNT, NOW, Shop
from support.elections import election_on
from support.streams import never_read


class Away:
    """A Horizon that cannot be read for hours, as its reader reports it."""

    def __init__(self) -> None:
        self.now = NOW
        self.hours_later = asyncio.Event()

    def clock(self) -> datetime:
        return self.now

    async def batches(self, account: str, after: Position) -> AsyncGenerator[Batch, None]:
        assert account == ACCOUNT
        for _ in range(240):
            self.now += timedelta(seconds=30)
            yield Batch((), after, after, None, 0)
        self.hours_later.set()
        await asyncio.Event().wait()


async def test_an_outage_of_two_hours_does_not_look_like_a_hung_listener(shop: Shop) -> None:
    away, progress, stop = Away(), Progress(), asyncio.Event()
    election = election_on(shop.engine, away.clock, progress)
    follower = Follower(
        shop.engine, election, shop.settler, away.clock, Random(1), shop.metrics, progress
    )
    listener = Listener(follower, away, never_read(follower))
    running = asyncio.create_task(listener.run(stop))
    await asyncio.wait_for(away.hours_later.wait(), 10)
    assert away.now - NOW == timedelta(hours=2)
    assert f"listen:{ACCOUNT}" not in progress.stale(away.now)
    state = {"stream": ACCOUNT, "paywatch_stream_state": "retrying"}
    assert shop.metrics.registry.get_sample_value("paywatch_stream_state", state) == 1
    stop.set()
    await running

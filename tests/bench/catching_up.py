"""paywatch catching up with a backlog: the live stream's own path, in one process."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final

from bench.ledger import Recorded
from paywatch.config import load
from paywatch.service.follow import Stream
from paywatch.store.cursors import live_stream
from paywatch.store.engine import create_engine
from paywatch.wiring.house import House, furnish
from support.site import KEY

LONGEST_S: Final = 200.0  # then something is wrong: not all that was paid is settled


async def catch_up(database_url: str, horizon_url: str, ledger: Recorded) -> float:
    """Follow the account's stream until its whole backlog is committed; gives the seconds.

    From the claim of the cursor on: root document, pages over HTTP, records, settling, COMMIT.
    """
    settings = load(
        {
            "PAYWATCH_DATABASE_URL": database_url,
            "PAYWATCH_SECRET_KEY": KEY,
            "PAYWATCH_HORIZON_URL": horizon_url,
            "PAYWATCH_NETWORK_PASSPHRASE": ledger.passphrase,
            "PAYWATCH_HORIZON_HOURLY_REQUESTS": "10000000",
        }
    )
    engine, over = create_engine(database_url), asyncio.Event()
    try:
        async with furnish(settings, engine) as furnished:
            house = replace(furnished, on_told=_until_all_told(furnished, ledger, over))
            stream = Stream(
                live_stream(ledger.account),
                ledger.account,
                lambda claim: house.source.batches(ledger.account, claim.position),
            )
            stuck_s = house.listener.follower.timing.allowance_s
            house.progress.watch(
                f"listen:{stream.label}", timedelta(seconds=stuck_s), house.clock()
            )
            began = time.perf_counter()
            async with asyncio.timeout(LONGEST_S):
                await house.listener.follower.follow(stream, over)
            return time.perf_counter() - began
    finally:
        await engine.dispose()


def _until_all_told(house: House, ledger: Recorded, over: asyncio.Event) -> Callable[[], None]:
    """Give what settling calls behind each commit: it ends the following behind the last one."""
    wanted = len(ledger.transactions)

    def on_told() -> None:
        [payments] = house.metrics.payments.collect()  # alone: the registry asks the system, too
        if payments.samples[0].value == wanted:
            over.set()

    return on_told

"""kill -9 on an announcement, between its steps: the session is taken up by recovery, or untouched.

Horizon hangs, or somebody has the session's lock, until the process is gone.
"""

from collections.abc import AsyncIterator

import psycopg
import pytest

from paywatch.sim import Fault, Moment
from support.commands import answer
from support.locks import somebody_waits_for_a_lock
from support.program import running
from support.site import Document, Site, open_site


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with open_site(database_url, close_every_s=0.05) as site:
        yield site


async def open_session(site: Site) -> Document:
    names = ("--name", "Shop", "--account", site.shop.account_id)
    merchant = await answer(site.environ, "merchant", "create", *names)
    wanted = ("--merchant", merchant["merchant_id"], "--amount", "5", "--asset", "native")
    made: Document = await answer(site.environ, "session", "create", *wanted)
    return made


async def shown(site: Site, session: Document) -> Document:
    document: Document = await answer(site.environ, "session", "show", session["id"])
    return document


async def recovered(site: Site) -> Document:
    report: Document = await answer(site.environ, "recover")
    assert report["healthy"]
    return report


@pytest.mark.parametrize("hanging_at", ["/", "/transactions/", "/payments"])
async def test_a_crash_that_leaves_a_session_in_processing(site: Site, hanging_at: str) -> None:
    session = await open_session(site)
    (tx,) = await site.pay(site.payment(session))
    site.network.faults.next(Fault.HANG, Moment.PAGE, hanging_at)
    async with running(site.environ, "session", "announce", session["id"], tx.hash) as process:
        await site.network.requests.wait_for(lambda request: request.fault is Fault.HANG)
        await process.kill()
    left = await shown(site, session)
    assert (left["status"], left["announced_tx_hash"]) == ("processing", tx.hash)
    assert left["credits"] == []
    report = await recovered(site)
    assert (report["settled"], report["returned"]) == (1, 0)
    assert (await shown(site, session))["status"] == "paid"
    assert (await recovered(site))["settled"] == 0


async def test_a_crash_before_the_announcement_is_written_leaves_the_session_untouched(
    site: Site, database_url: str
) -> None:
    session = await open_session(site)
    with psycopg.connect(database_url) as holder, psycopg.connect(database_url) as prober:
        holder.execute("SELECT FROM checkout_sessions FOR UPDATE")
        async with running(
            site.environ, "session", "announce", session["id"], "ab" * 32
        ) as process:
            await somebody_waits_for_a_lock(prober)
            await process.kill()
        holder.rollback()
    left = await shown(site, session)
    assert (left["status"], left["announced_tx_hash"]) == ("pending", None)
    again = await answer(site.environ, "session", "announce", session["id"], "ab" * 32)
    assert (again["reception"], again["status"]) == ("taken", "processing")

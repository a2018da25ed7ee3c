"""The checks of the simulation on looks that no run has had: each sees what it is there for."""

import asyncio
from random import Random
from typing import Any, cast

import psycopg
import pytest
import structlog

from paywatch.sim import Ledger, LedgerSettings, Merchant, ReceivedWebhook
from paywatch.sim.history import after_ledger
from simulation.book import Book, Diary
from simulation.checks import Checks, Look
from simulation.plan import AnswerRates, draw
from simulation.run import _logs
from simulation.shops import Shops
from simulation.town import open_town
from simulation.trace import Trace
from simulation.world import to_its_end
from support import ACCOUNT, NOW

STREAM = f"live:{ACCOUNT}"
FIRST = after_ledger(1000)


def make_look(position: int = FIRST, *, history: int = 1, epoch: int = 2, start: int = 1) -> Look:
    return Look(cursors={STREAM: (history, position, epoch)}, accounts={ACCOUNT: (start, STREAM)})


@pytest.fixture
def diary() -> Diary:
    return Diary(Trace(lambda: 0.0))


@pytest.fixture
def checks(diary: Diary) -> Checks:
    ledger = Ledger(NOW, LedgerSettings(first_ledger=1000))
    conn = cast("psycopg.Connection[Any]", None)  # each look is given
    return Checks(conn, ledger, Book(), diary, lambda: NOW)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (make_look(FIRST - 1), "the cursor of"),
        (make_look(FIRST + 1), "the ledger ends at"),
        (make_look(epoch=1), "the cursor of"),
        (make_look(history=2), "the cursor of"),
        (make_look(history=0), "the cursor of"),
        (make_look(start=2), "was watched from 1 on"),
        (make_look(start=FIRST + 1), "the ledger ends at"),
    ],
)
def test_what_never_changes_so_is_seen(checks: Checks, changed: Look, problem: str) -> None:
    assert list(checks.problems(make_look())) == []
    assert list(checks.problems(make_look(epoch=3))) == []
    assert any(problem in found for found in checks.problems(changed))


def test_a_credit_that_is_written_over_is_looked_at_again(checks: Checks) -> None:
    look = make_look()
    look.credits[1, 0] = "as it was"
    assert len(list(checks.problems(look))) == 1
    assert list(checks.problems(look)) == []
    look = make_look()
    look.credits[1, 0] = "as it is now"
    assert any("as it is now" in found for found in checks.problems(look))


def test_a_redirect_that_is_followed_is_an_alarm(diary: Diary) -> None:
    rates = AnswerRates(redirect=1.0)
    shops = Shops(Merchant(), Book(), diary, rates, Random(1), lambda _: None, None, is_ill=True)
    _, answer = shops._answer("/0")
    assert answer.status == 302
    shops.receive(ReceivedWebhook(answer.headers["Location"], {}, b""))
    assert diary.wrong == ["a redirect was followed"]


def test_a_violation_that_a_daemon_alone_believes_in_is_an_alarm(diary: Diary) -> None:
    with _logs(diary):
        structlog.get_logger().error("recovery_run", violations=(), healthy=False)
        assert diary.wrong == []
        structlog.get_logger().error("recovery_run", violations=("a lease",), healthy=False)
    assert diary.wrong == ["world believes in violations: ('a lease',)"]


async def test_what_somebody_has_begun_is_done_though_the_phase_ends() -> None:
    begun, may_end, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def act() -> None:
        begun.set()
        await may_end.wait()
        done.set()

    acting = asyncio.create_task(to_its_end(act()))
    await begun.wait()
    acting.cancel()
    await asyncio.sleep(0)
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await acting
    assert done.is_set()


async def test_two_horizons_of_another_network_are_two(diary: Diary) -> None:
    """Seeds 220 and 222 had one address twice among the settings, and no daemon began."""
    plan = draw(220)
    assert [horizon.kind for horizon in plan.horizons].count("foreign") == 2
    async with open_town(plan, Book(), diary, lambda: NOW) as town:
        assert len(set(town.urls.split(","))) == len(plan.horizons) == 3

"""Gaps and resets from end to end: what stops, what is said, and what an operator's word does."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from stellar_sdk import IdMemo

from paywatch import config
from paywatch.domain.checkout import CheckoutSession
from paywatch.domain.ledger import Position
from paywatch.errors import CursorMoved, HistoryGap, InvalidInput
from paywatch.horizon.timing import Timing
from paywatch.service.checkout import SessionRequest
from paywatch.service.follow import Timing as FollowTiming
from paywatch.service.histories import Begun, present_history
from paywatch.service.standing import CanGoOn, read_standings
from paywatch.sim import LedgerSettings, NetworkSettings, SimNetwork, Wallet
from paywatch.sim.history import AppliedTx
from paywatch.store.cursors import backfill_stream, live_stream
from paywatch.wiring import House, furnish, open_database
from paywatch.wiring.health import Health
from support.commands import command
from support.horizons import pool_of
from support.program import Ended
from support.site import KEY, Document

QUICK = Timing(reconcile_s=0.05, overlap_s=0.0, root_age_s=0.0, backoff_base_s=0.002)
SEED = "SBFGFF27Y64ZUGFAIG5AMJGQODZZKV2YQKAVUUN4HNE24XZXD2OEUVUP"


@dataclass
class Town:
    """A network whose ledgers close on command, a shop on it, and a listener that can be lost."""

    network: SimNetwork
    environ: dict[str, str]
    house: House
    alice: Wallet = field(init=False)
    shop: Wallet = field(init=False)
    merchant_id: UUID = field(init=False)

    async def settle_down(self) -> None:
        """Make the accounts; in each history at the same place."""
        self.alice, self.shop = await self.network.fund("alice", "shop")

    async def reset(self) -> None:
        """Begin again under the same name, with the same accounts."""
        self.network.reset(self.network.ledger.latest.closed_at + timedelta(minutes=2))
        await self.settle_down()

    async def open_session(self) -> CheckoutSession:
        request = SessionRequest(self.merchant_id, "12.5", "native")
        return await self.house.checkout.create_session(request)

    async def pay(self, session: CheckoutSession) -> AppliedTx:
        memo = IdMemo(int(str(session.memo)))
        [tx] = await self.network.pay(self.alice.pay(self.shop.account_id, "12.5", memo=memo))
        return tx

    async def stream(self, *args: str) -> Ended:
        """Run `paywatch stream …`; not beside the listener, which speaks into its output."""
        return await command(self.environ, "stream", *args)

    async def answer(self, *args: str) -> Any:
        ended = await self.stream(*args, "--json")
        assert ended.code == 0, ended.err
        return ended.document

    async def refused(self, *args: str) -> Ended:
        ended = await self.stream(*args)
        assert ended.code != 0, ended.out
        return ended

    async def status(self, session: CheckoutSession) -> str:
        return (await self.house.checkout.read_session(session.id)).session.status

    async def paid(self, session: CheckoutSession) -> bool:
        return await self.status(session) == "paid"

    async def query(self, sql: str) -> list[tuple[Any, ...]]:
        async with self.house.engine.begin() as conn:
            return [tuple(row) for row in await conn.execute(text(sql))]

    @property
    def name(self) -> str:
        """Of the shop's stream."""
        return live_stream(self.shop.account_id)

    async def standing(self) -> Document:
        [standing] = (await self.answer("list"))["streams"]
        found: Document = standing
        return found

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[House]:
        """A house of a process that has just started, and asks Horizon each time."""
        settings = self.house.settings
        async with pool_of(
            settings.network_passphrase,
            settings.horizon_url,
            timing=QUICK,
            read_history=partial(present_history, self.house.engine),
        ) as source:
            yield replace(self.house, source=source)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[House]:
        """Follow the streams as the daemon does, only with shorter waits."""
        async with self.asking() as house:
            waits, stop = FollowTiming(stopped_s=0.05, again_s=0.05), asyncio.Event()
            listening = house.listener
            follower = replace(listening.follower, timing=waits)
            listener = replace(listening, follower=follower)
            following = asyncio.create_task(listener.run(stop))
            try:
                yield house
            finally:
                stop.set()
                await following


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await holds():  # noqa: ASYNC110 - another process has no event
            await asyncio.sleep(0.02)


async def readiness(house: House) -> tuple[bool, str, str]:
    """What `/health/ready` says of the streams."""
    found = await Health(house, house.gauges(upstream=True), upstream=True, listening=True).listen()
    return found.ready, found.state, found.message


async def stopped(house: House) -> bool:
    return bool(house.streams.stopped)


async def goes_on(house: House) -> bool:
    return not house.streams.stopped


@pytest.fixture
async def town(database_url: str) -> AsyncIterator[Town]:
    now = datetime.now(UTC).replace(microsecond=0)
    async with SimNetwork(NetworkSettings(started_at=now)) as network:
        others = {k: v for k, v in os.environ.items() if not k.startswith("PAYWATCH_")}
        environ = others | {
            "PAYWATCH_DATABASE_URL": database_url,
            "PAYWATCH_SECRET_KEY": KEY,
            "PAYWATCH_HORIZON_URL": network.url,
            "PAYWATCH_NETWORK_PASSPHRASE": network.passphrase,
            "PAYWATCH_LOG_LEVEL": "error",
        }
        settings = config.load({k: v for k, v in environ.items() if k not in others})
        async with open_database(settings) as database, furnish(settings, database.engine) as house:
            town = Town(network, environ, house)
            await town.settle_down()
            made = await house.checkout.create_merchant("Shop", town.shop.account_id)
            town.merchant_id = made.merchant_id
            await house.histories.keep_landmark()
            yield town
            assert await house.recovery.check_invariants(None) == ()


async def test_after_a_reset_of_testnet_one_word_goes_on_and_nothing_old_is_lost(
    town: Town,
) -> None:
    """From their complaints: "a testnet reset wedges the daemon"."""
    before, after = await town.open_session(), await town.open_session()
    async with town.listening() as house:
        first = await town.pay(before)
        await until(lambda: town.paid(before))

        await town.reset()
        await until(lambda: stopped(house))
        ready, state, message = await readiness(house)
        assert (ready, state) == (False, "stopped")
        assert town.shop.account_id in message
        assert "the network began again" in message
        assert "`paywatch stream reset`" in message
        [standing] = (await read_standings(house.engine, house.source)).streams
        assert (standing.can_go_on, standing.cursor.history) == (CanGoOn.RESET, 0)

        # Paid already when the word is given, at the very place of the first.
        second = await town.pay(after)
        found = await house.histories.find_reset()
        assert (found.history.number, found.start) == (1, Position.after_ledger(0))
        assert await house.histories.begin(found) == Begun((town.name,), ())
        await until(lambda: town.paid(after))
        await until(lambda: goes_on(house))
        assert (await readiness(house))[0]
        with pytest.raises(CursorMoved, match="history 1 has begun already"):
            await house.histories.begin(found)
        with pytest.raises(InvalidInput, match="the network has not begun again"):
            await house.histories.find_reset()
    assert (first.id, first.ledger) == (second.id, second.ledger)
    rows = "SELECT operation_id, history, outcome FROM credits ORDER BY history, operation_id"
    assert await town.query(rows) == [
        (first.id + 1, 0, "applied"),
        (Position.of(2, 1, 2), 1, "unmatched"),  # it was funded again
        (second.id + 1, 1, "applied"),
    ]
    assert await town.paid(before)


async def test_the_same_envelope_is_paid_again_in_the_new_history_and_wedges_nothing(
    town: Town,
) -> None:
    """Same name, same sequence number: the hash, too, comes a second time."""
    session, other = await town.open_session(), await town.open_session()
    async with town.listening() as house:
        first = await town.pay(session)
        await until(lambda: town.paid(session))
        await town.reset()
        await until(lambda: stopped(house))
        second = await town.pay(session)
        assert second.hash == first.hash
        await house.histories.begin(await house.histories.find_reset())
        await town.pay(other)
        await until(lambda: town.paid(other))
    rows = "SELECT encode(tx_hash, 'hex'), history, outcome FROM credits ORDER BY history, 1"
    assert [row for row in await town.query(rows) if row[0] == first.hash] == [
        (first.hash, 0, "applied"),
        (first.hash, 1, "duplicate"),
    ]


async def test_a_gap_stops_the_stream_until_an_operator_accepts_the_loss(town: Town) -> None:
    lost, found = await town.open_session(), await town.open_session()
    ledger = town.network.ledger.latest.sequence
    await town.pay(lost)
    for _ in range(9):
        await town.network.close_ledger()
    town.network.horizon.view.keep_from(ledger + 5)
    async with town.listening() as house:
        await until(lambda: stopped(house))
        ready, _, message = await readiness(house)
        assert not ready
        assert f"`paywatch stream accept-gap {town.name}`" in message
        missing = await house.gaps.find(town.name)
        assert (missing.upto, missing.ledgers) == (Position.after_ledger(ledger + 4), 4)
        assert {id_ for id_, _ in missing.sessions} == {lost.id, found.id}
        await house.gaps.accept(missing)
        with pytest.raises(CursorMoved, match="has moved meanwhile"):
            await house.gaps.accept(missing)
        await town.pay(found)
        await until(lambda: town.paid(found))
        await until(lambda: goes_on(house))
    assert await town.status(lost) == "pending", "lost from sight, and not expired by it"

    town.network.horizon.view.keep_from(1)  # a Horizon with longer history was found after all
    async with town.asking() as house:
        beginning, end = Position(0), await house.source.tip()
        report = await house.backfill().run_range(town.shop.account_id, beginning, end)
    assert report.found == 2, "the payment, and the account's own beginning"
    assert await town.paid(lost)


async def test_what_is_missing_is_shown_before_it_is_given_up(town: Town) -> None:
    session = await town.open_session()
    for _ in range(9):
        await town.network.close_ledger()
    town.network.horizon.view.keep_from(9)
    standing = await town.standing()
    assert (standing["can_go_on"], standing["ledger"]) == ("gap", 2)
    assert standing["remedy"] == f"`paywatch stream accept-gap {town.name}` accepts it"
    shown = await town.refused("accept-gap", town.name, "--json")
    assert shown.code == 2
    assert "nothing was given up; repeat with --yes" in shown.err
    missing = shown.document
    assert (missing["after_ledger"], missing["to_ledger"], missing["ledgers"]) == (2, 8, 6)
    assert missing["sessions"] == [{"id": str(session.id), "reference": None}]
    assert (await town.standing())["ledger"] == 2
    account = ("--account", town.shop.account_id)
    accepted = await town.answer("accept-gap", *account, "--yes")
    assert accepted == missing | {"accepted": True}
    [gap] = (await town.answer("list"))["accepted_gaps"]
    assert (gap["stream"], gap["after_ledger"], gap["to_ledger"]) == (town.name, 2, 8)


async def test_a_reset_is_begun_by_a_clear_word_only(town: Town) -> None:
    """A process of its own, which has seen nothing: the landmark tells it."""
    await town.reset()
    standing = await town.standing()
    assert (standing["can_go_on"], standing["history"]) == ("reset", 0)
    assert "ledger 2 is" in standing["why"]
    unsure = await town.refused("reset")
    assert unsure.code == 2
    assert "nothing was begun; repeat with --yes" in unsure.err
    assert (await town.standing())["history"] == 0
    begun = await town.answer("reset", "--yes")
    assert (begun["history"], begun["from_ledger"], begun["begun"]) == (1, 1, True)
    assert begun["streams"] == [town.name]
    standing = await town.standing()
    assert (standing["can_go_on"], standing["history"], standing["ledger"]) == ("ok", 1, 0)


async def test_a_backfill_whose_ledgers_are_gone_can_be_given_up_too(town: Town) -> None:
    for _ in range(9):
        await town.network.close_ledger()
    latest = town.network.ledger.latest.sequence
    town.network.horizon.view.keep_from(latest)
    begin, end = Position.after_ledger(1), Position.after_ledger(latest - 3)
    stream = backfill_stream(town.shop.account_id, begin)
    async with town.asking() as house:
        with pytest.raises(HistoryGap):
            await house.backfill().run_range(town.shop.account_id, begin, end)
        missing = await house.gaps.find(stream)
        assert missing.upto == end, "no further than its end"
        await house.gaps.accept(missing)
        await house.backfill().resume_all()
    assert await town.query("SELECT stream FROM cursors") == [(town.name,)]


async def test_words_that_fit_nothing_are_refused(town: Town) -> None:
    for args, code, says in (
        (("accept-gap", town.name, "--yes"), 2, "has no gap: Horizon goes on"),
        (("accept-gap", "live:nobody", "--yes"), 1, "there is no such stream"),
        (("accept-gap",), 2, "give its name or --account"),
        (("accept-gap", town.name, "--account", town.shop.account_id), 2, "one of the two"),
        (("reset", "--yes"), 2, "the network has not begun again"),
    ):
        ended = await town.refused(*args)
        assert (ended.code, ended.out) == (code, "")
        assert says in ended.err
    for args in ((SEED,), ("--account", SEED)):
        assert SEED not in (await town.refused("accept-gap", *args)).err
    assert (await town.standing())["can_go_on"] == "ok"


async def test_another_network_is_no_new_history_of_this_one(town: Town) -> None:
    other = NetworkSettings(ledger=LedgerSettings(passphrase="Another"))
    async with SimNetwork(other) as elsewhere:
        await elsewhere.close_ledger()
        town.environ["PAYWATCH_HORIZON_URL"] = elsewhere.url
        ended = await town.refused("reset", "--yes")
        assert "Horizon serves 'Another'" in ended.err
        assert (await town.standing())["can_go_on"] == "refused"
    assert (await town.standing())["can_go_on"] == "unknown", "it does not answer any more"
    town.environ["PAYWATCH_HORIZON_URL"] = town.network.url


async def test_a_reset_is_no_gap_to_be_accepted(town: Town) -> None:
    await town.reset()
    ended = await town.refused("accept-gap", town.name, "--yes")
    assert "the network began again" in ended.err
    position = await town.query("SELECT position, history FROM cursors")
    assert position == [(Position.after_ledger(2), 0)]


async def test_what_people_read_of_it(town: Town) -> None:
    listed = await town.stream("list")
    assert "streams of history 0" in listed.out
    assert town.name in listed.out
    for _ in range(9):
        await town.network.close_ledger()
    town.network.horizon.view.keep_from(9)
    await town.open_session()
    listed = await town.stream("list")
    assert "`paywatch stream accept-gap" in listed.out
    accepted = await town.stream("accept-gap", town.name, "--yes")
    assert "open sessions that may have been paid in it" in accepted.out
    assert "Given up." in accepted.out
    assert "given up after ledger 2 to ledger 8" in (await town.stream("list")).out
    town.network.horizon.view.keep_from(1)
    await town.reset()
    begun = await town.stream("reset", "--yes")
    assert "1 streams begin anew" in begun.out

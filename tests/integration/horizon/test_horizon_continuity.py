"""A network that begins again under its own name: what gives it away."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from paywatch.domain.ledger import History, Landmark, Position
from paywatch.errors import HistoryGap, HorizonUnavailable, NetworkReset
from paywatch.horizon.continuity import Continuity
from paywatch.horizon.documents import Root
from paywatch.horizon.source import HorizonSource
from paywatch.horizon.timing import Timing
from paywatch.sim import Fault, Moment, SimNetwork
from support import NOW

LANDMARK = Landmark(2, "ab" * 32)
GENESIS = Position.after_ledger(0)


@dataclass
class Kept:
    """The history as the database tells it."""

    history: History = field(default_factory=History)

    async def read(self) -> History:
        return self.history


@pytest.fixture
async def network() -> AsyncIterator[SimNetwork]:
    async with SimNetwork() as network:
        for _ in range(3):
            await network.close_ledger()
        yield network


def source_of(network: SimNetwork, kept: Kept, timing: Timing) -> HorizonSource:
    """A new process: it remembers nothing but what is kept."""
    return HorizonSource(network.url, network.passphrase, timing=timing, read_history=kept.read)


async def seen(network: SimNetwork, timing: Timing, ledger: int = 2) -> Landmark:
    async with source_of(network, Kept(), timing) as source:
        found = await source.ledger_hash(ledger)
    assert found is not None
    return Landmark(ledger, found)


async def test_a_new_process_knows_another_history_by_its_landmark_though_the_tip_is_higher(
    network: SimNetwork, fast: Timing
) -> None:
    """It was off for weeks; the new ledgers are above the cursor already: nothing else tells."""
    kept, cursor = Kept(History(0, await seen(network, fast))), Position.after_ledger(4)
    network.reset()
    for _ in range(9):
        await network.close_ledger()
    async with source_of(network, Kept(), fast) as without:
        await without.require_history(cursor)
    async with source_of(network, kept, fast) as source:
        await source.look()  # it bears the right name
        for _ in range(2):
            with pytest.raises(NetworkReset, match=r"ledger 2 is .*the network began again"):
                await source.require_history(cursor)
        with pytest.raises(NetworkReset):
            await source.network_page(set(), cursor)
        with pytest.raises(NetworkReset):
            await source.tip()


async def test_the_first_ledger_is_no_landmark(network: SimNetwork, fast: Timing) -> None:
    """It is made of the network's name alone, and is the same in each history."""
    first, second = await seen(network, fast, 1), await seen(network, fast)
    network.reset()
    await network.close_ledger()
    assert await seen(network, fast, 1) == first
    assert await seen(network, fast) != second


async def test_an_operators_word_that_another_history_began_is_taken_up_without_a_restart(
    network: SimNetwork, fast: Timing
) -> None:
    kept = Kept(History(0, await seen(network, fast)))
    async with source_of(network, kept, fast) as source:
        await source.require_history(Position.after_ledger(4))
        network.reset()
        await network.close_ledger()
        with pytest.raises(NetworkReset):
            await source.require_history(GENESIS)
        kept.history = History(1, await seen(network, fast))
        await source.require_history(GENESIS)
        await source.network_page(set(), GENESIS)


async def test_a_landmark_that_is_not_kept_any_more_proves_nothing(
    network: SimNetwork, fast: Timing
) -> None:
    kept = Kept(History(0, LANDMARK))
    network.horizon.view.keep_from(4)
    async with source_of(network, kept, fast) as source:
        await source.require_history(Position.after_ledger(3))
        with pytest.raises(HistoryGap) as caught:
            await source.require_history(Position.after_ledger(2))
        assert caught.value.elder == 4
        assert await source.ledger_hash(2) is None
        assert await source.ledger_hash(99) is None


async def test_without_an_answer_about_the_landmark_nothing_is_read(
    network: SimNetwork, fast: Timing
) -> None:
    kept = Kept(History(0, await seen(network, fast)))
    async with source_of(network, kept, fast) as source:
        network.faults.next(Fault.SERVER_ERROR, Moment.PAGE, "ledgers")
        with pytest.raises(HorizonUnavailable):
            await source.network_page(set(), GENESIS)
        await source.network_page(set(), GENESIS)


def root_at(latest: int, elder: int = 1) -> Root:
    return Root("Test", latest, NOW + timedelta(seconds=latest), elder)


class Asked:
    """A Horizon's answers about a ledger, and how often it was asked."""

    def __init__(self, answer: str | None = LANDMARK.hash) -> None:
        self.answer = answer
        self.times = 0

    async def hash(self, ledger: int) -> str | None:
        assert ledger == LANDMARK.ledger
        self.times += 1
        return self.answer


async def test_the_landmark_is_looked_at_once_and_again_after_an_hour() -> None:
    asked = Asked()
    rarely = Continuity(Kept(History(0, LANDMARK)).read, asked.hash)
    for latest in (5, 6, 7):
        await rarely.require(root_at(latest))
    assert asked.times == 1
    always = Continuity(Kept(History(0, LANDMARK)).read, asked.hash, check_s=-1)
    await always.require(root_at(5))
    asked.answer = "cd" * 32
    with pytest.raises(NetworkReset):
        await always.require(root_at(6))


async def test_a_landmark_that_cannot_be_seen_yet_is_looked_at_when_it_can() -> None:
    asked = Asked(None)
    continuity = Continuity(Kept(History(0, LANDMARK)).read, asked.hash)
    await continuity.require(root_at(1))
    assert asked.times == 0, "its latest ledger is before the landmark"
    await continuity.require(root_at(2))
    asked.answer = "cd" * 32  # behind a balancer: the one asked first did not have it
    with pytest.raises(NetworkReset):
        await continuity.require(root_at(3))
    assert asked.times == 2


async def nothing(_: int) -> None:
    """What an instance answers that has not the ledger."""


async def test_a_new_ledger_that_outgrows_the_old_one_does_not_become_it() -> None:
    """Stopped by a lower tip, a stream went on as soon as the new ledgers were as many."""
    for kept in (Kept(), Kept(History(0, replace(LANDMARK, ledger=400)))):
        continuity = Continuity(kept.read, nothing)
        await continuity.require(root_at(500))
        for latest in (3, 499, 500, 9000):
            root = replace(root_at(latest), closed_at=NOW + timedelta(days=latest + 1))
            with pytest.raises(NetworkReset, match="it was 500 before"):
                await continuity.require(root)
    kept.history = History(1)
    await continuity.require(root)


async def test_an_instance_that_proves_to_be_the_old_one_is_read_again() -> None:
    """A balancer showed another network's instance for a moment."""
    asked = Asked()
    continuity = Continuity(Kept(History(0, LANDMARK)).read, asked.hash)
    await continuity.require(root_at(500))
    with pytest.raises(NetworkReset):
        await continuity.require(replace(root_at(3), closed_at=NOW + timedelta(days=1)))
    await continuity.require(root_at(501))


async def test_the_same_ledger_at_another_time_is_another_history() -> None:
    continuity = Continuity(Kept().read, Asked().hash)
    await continuity.require(root_at(500))
    with pytest.raises(NetworkReset):
        await continuity.require(replace(root_at(500), closed_at=NOW))


async def test_a_lower_tip_later_is_another_history_until_somebody_says_so() -> None:
    kept = Kept()
    continuity = Continuity(kept.read, Asked().hash)
    await continuity.require(root_at(500))
    later = replace(root_at(3), closed_at=NOW + timedelta(days=1))
    with pytest.raises(NetworkReset):
        await continuity.require(later)
    kept.history = History(1)
    await continuity.require(later)
    with pytest.raises(NetworkReset):
        await continuity.require(replace(later, latest=2, closed_at=NOW + timedelta(days=2)))

"""The network without its server: journal, sequence numbers, reset."""

from datetime import timedelta
from pathlib import Path

import pytest
from stellar_sdk import ChangeTrust

from paywatch.sim import LedgerSettings, NetworkSettings, SimNetwork
from support.sim_town import START


@pytest.fixture
def settings(tmp_path: Path) -> NetworkSettings:
    return NetworkSettings(started_at=START, journal=tmp_path / "demo" / "journal.jsonl")


def hashes(network: SimNetwork) -> list[str]:
    return [ledger.hash for ledger in network.ledger.history.ledgers]


async def test_a_network_meets_the_same_ledgers_again_after_a_kill(
    settings: NetworkSettings,
) -> None:
    first = SimNetwork(settings)
    alice, bob = await first.fund("alice", "bob")
    await first.pay(alice.pay(bob.account_id, "1"), alice.pay(bob.account_id, "999999"))
    await first.close_ledger()

    second = SimNetwork(settings)

    assert hashes(second) == hashes(first)
    assert [tx.successful for tx in second.ledger.history.transactions] == [True, True, False]
    (paid,) = await second.pay(second.wallet("alice").pay(bob.account_id, "2"))
    assert paid.successful


async def test_a_line_that_was_cut_by_the_kill_is_dropped(settings: NetworkSettings) -> None:
    first = SimNetwork(settings)
    await first.fund("alice")
    assert settings.journal is not None
    whole = settings.journal.read_bytes()
    settings.journal.write_bytes(whole + b'["2026-01-01T00:00:10+00:00", "AAAA')

    second = SimNetwork(settings)

    assert hashes(second) == hashes(first)
    assert settings.journal.read_bytes() == whole
    await second.close_ledger()
    assert hashes(SimNetwork(settings)) == hashes(second)


async def test_a_reset_begins_another_history_in_the_journal_too(
    settings: NetworkSettings,
) -> None:
    network = SimNetwork(settings)
    await network.fund("alice")
    before = hashes(network)

    network.reset(START + timedelta(days=90))

    assert network.ledger.latest.sequence == 1
    assert hashes(network) == before[:1], "the first ledger follows from the network's name"
    await network.fund("alice")
    assert not set(hashes(network)[1:]) & set(before)
    assert hashes(SimNetwork(settings)) == hashes(network)
    assert network.horizon.view.ledger is network.ledger


async def test_envelopes_built_before_any_is_submitted_have_numbers_of_their_own() -> None:
    network = SimNetwork()
    alice, bob = await network.fund("alice", "bob")
    paid = await network.pay(*[alice.pay(bob.account_id, "1") for _ in range(3)])
    assert [tx.successful for tx in paid] == [True] * 3


async def test_a_number_that_was_not_used_is_free_again_in_the_next_ledger() -> None:
    network = SimNetwork()
    alice, bob = await network.fund("alice", "bob")
    never_sent = alice.pay(bob.account_id, "1")
    await network.close_ledger()
    sent = alice.pay(bob.account_id, "2")
    assert sent.transaction.sequence == never_sent.transaction.sequence
    assert (await network.pay(sent))[0].successful


async def test_many_accounts_are_funded_at_once() -> None:
    network = SimNetwork()
    wallets = await network.fund(*(f"customer {n}" for n in range(150)), lumens="5")
    assert network.ledger.latest.operations == 150
    assert all(network.ledger.state.account(w.account_id) for w in wallets)


async def test_the_first_ledgers_number_may_be_as_high_as_a_real_one() -> None:
    network = SimNetwork(NetworkSettings(ledger=LedgerSettings(first_ledger=60_000_000)))
    (alice,) = await network.fund("alice")
    (tx,) = await network.pay(alice.build([ChangeTrust(network.root.asset("USD"))]))
    assert tx.id >> 32 == 60_000_002


async def test_ledgers_close_five_seconds_apart_unless_told() -> None:
    network = SimNetwork(NetworkSettings(started_at=START))
    assert (await network.close_ledger()).closed_at == START + timedelta(seconds=5)
    late = START + timedelta(hours=1)
    assert (await network.close_ledger(late)).closed_at == late

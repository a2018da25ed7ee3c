import base64
from datetime import timedelta
from fractions import Fraction
from itertools import pairwise

import pytest
from stellar_sdk import (
    AccountMerge,
    Asset,
    ChangeTrust,
    CreateAccount,
    FeeBumpTransactionEnvelope,
    IdMemo,
    Keypair,
    ManageData,
    Network,
    PathPaymentStrictReceive,
    PathPaymentStrictSend,
    Payment,
    SetOptions,
    TimeBounds,
    TransactionEnvelope,
    xdr,
)

from paywatch.sim import Ledger, TxRefused, Wallet
from paywatch.sim.envelopes import MalformedEnvelope
from paywatch.sim.results import result_codes
from support.sim_town import START, USD, Town

NATIVE = Asset.native()


def refused_with(town: Town, envelope: TransactionEnvelope | FeeBumpTransactionEnvelope) -> str:
    with pytest.raises(TxRefused) as caught:
        town.ledger.submit(envelope.to_xdr())
    return str(result_codes(caught.value.result)["transaction"])


def codes(town: Town, envelope: TransactionEnvelope) -> list[str]:
    """The codes of a transaction that got into a ledger and failed there."""
    tx = town.settle(envelope)
    assert not tx.successful
    return list(result_codes(xdr.TransactionResult.from_xdr(tx.result_xdr))["operations"])


def test_a_payment_moves_the_amount_and_the_payer_pays_the_fee(town: Town) -> None:
    alice, bob = town.lumens(town.alice), town.lumens(town.bob)

    tx = town.settle(town.alice.pay(town.bob.account_id, "12.5"))

    assert tx.successful
    assert town.lumens(town.alice) == alice - 125_000_000 - 100
    assert town.lumens(town.bob) == bob + 125_000_000


def test_positions_are_toids_that_count_from_one(town: Town) -> None:
    for amount in ("1", "2"):
        town.ledger.submit(town.alice.pay(town.bob.account_id, amount).to_xdr())
    both = [Payment(town.alice.account_id, NATIVE, amount) for amount in ("3", "4")]
    town.ledger.submit(town.bob.build(both).to_xdr())

    ledger = town.close().sequence

    found = [
        (op.id >> 32, op.id >> 12 & 0xFFFFF, op.id & 0xFFF)
        for op in town.ledger.history.operations[-4:]
    ]
    assert found == [(ledger, 1, 1), (ledger, 2, 1), (ledger, 3, 1), (ledger, 3, 2)]
    assert [tx.id & 0xFFF for tx in town.ledger.history.transactions] == [0] * 5


def test_a_failed_operation_fails_the_whole_transaction_but_it_is_charged_and_kept(
    town: Town,
) -> None:
    alice, bob = town.lumens(town.alice), town.lumens(town.bob)
    operations = [
        Payment(town.bob.account_id, NATIVE, "1"),
        Payment(town.bob.account_id, NATIVE, "1000000"),
        Payment(town.bob.account_id, NATIVE, "2"),
    ]

    tx = town.settle(town.alice.build(operations, IdMemo(7)))

    result = xdr.TransactionResult.from_xdr(tx.result_xdr)
    assert result_codes(result) == {
        "transaction": "tx_failed",
        "operations": ["op_success", "op_underfunded", "op_success"],
    }
    assert (town.lumens(town.alice), town.lumens(town.bob)) == (alice - 300, bob)
    assert tx.memo == {"memo": "7", "memo_type": "id"}
    assert [op.details["amount"] for op in town.operations(tx)] == [
        "1.0000000", "1000000.0000000", "2.0000000"
    ]  # fmt: skip
    assert not any(op.effects for op in town.operations(tx))


def test_a_failed_transaction_uses_its_sequence_number(town: Town) -> None:
    before = town.ledger.next_sequence(town.alice.account_id)
    town.settle(town.alice.pay(town.bob.account_id, "1000000"))
    assert town.ledger.next_sequence(town.alice.account_id) == before + 1


def test_payment_refusals_are_named(town: Town) -> None:
    nobody = Payment(Keypair.random().public_key, NATIVE, "1")
    assert codes(town, town.alice.build([nobody])) == ["op_no_destination"]
    poor = town.wallet("poor")
    town.settle(town.root.build([CreateAccount(poor.account_id, "2")]))
    # The reserve of one lumen must stay, and the fee is paid already.
    assert codes(town, poor.pay(town.bob.account_id, "1")) == ["op_underfunded"]


def test_a_credit_needs_trust_on_both_sides(town: Town) -> None:
    assert codes(town, town.issuer.pay(town.alice.account_id, "1", USD)) == ["op_no_trust"]
    assert codes(town, town.alice.pay(town.bob.account_id, "1", USD)) == ["op_src_no_trust"]


def test_an_issuer_mints_and_burns(town: Town) -> None:
    town.settle(town.issuer.pay(town.bob.account_id, "5", USD))
    town.settle(town.bob.pay(town.issuer.account_id, "2", USD))
    assert town.dollars(town.bob) == 30_000_000


def test_a_trust_line_is_full_at_its_limit(town: Town) -> None:
    town.settle(town.bob.build([ChangeTrust(USD, "3")]))
    assert codes(town, town.issuer.pay(town.bob.account_id, "3.0000001", USD)) == ["op_line_full"]


def test_strict_receive_delivers_exactly_and_takes_what_the_rate_says(town: Town) -> None:
    alice = town.lumens(town.alice)

    tx = town.settle(town.alice.path_receive(town.bob.account_id, "1.0000001", USD, send_max="9"))

    (operation,) = town.operations(tx)
    assert operation.details["amount"] == "1.0000001"
    assert operation.details["source_amount"] == "8.0000008"
    assert town.dollars(town.bob) == 10_000_001
    assert town.lumens(town.alice) == alice - 80_000_008 - 100


def test_strict_send_takes_exactly_and_delivers_what_the_rate_says(town: Town) -> None:
    alice = town.lumens(town.alice)

    tx = town.settle(town.alice.path_send(town.bob.account_id, "1.0000009", USD, dest_min="0.1"))

    (operation,) = town.operations(tx)
    assert operation.details["source_amount"] == "1.0000009"
    assert operation.details["amount"] == "0.1250001", "rounded down, in the maker's favour"
    assert town.dollars(town.bob) == 1_250_001
    assert town.lumens(town.alice) == alice - 10_000_009 - 100


def test_a_path_converts_hop_by_hop(town: Town) -> None:
    euro = town.issuer.asset("EUR")
    town.ledger.rates.set(NATIVE, euro, Fraction(1))
    town.ledger.rates.set(euro, USD, Fraction(2))
    payment = PathPaymentStrictSend(town.bob.account_id, NATIVE, "3", USD, "1", [euro])

    tx = town.settle(town.alice.build([payment]))

    (operation,) = town.operations(tx)
    assert operation.details["amount"] == "6.0000000"
    result = xdr.TransactionResult.from_xdr(tx.result_xdr).result.results
    assert result is not None
    assert result[0].tr is not None
    assert result[0].tr.path_payment_strict_send_result is not None
    success = result[0].tr.path_payment_strict_send_result.success
    assert success is not None
    assert len(success.offers) == 2


def test_a_path_payment_beyond_its_bounds_fails(town: Town) -> None:
    over = town.alice.path_receive(town.bob.account_id, "1", USD, send_max="7.9999999")
    assert codes(town, over) == ["op_over_source_max"]
    under = town.alice.path_send(town.bob.account_id, "8", USD, dest_min="1.0000001")
    assert codes(town, under) == ["op_under_dest_min"]
    unknown = town.issuer.asset("XXX")
    none = PathPaymentStrictReceive(town.bob.account_id, unknown, "1", NATIVE, "1", [])
    assert codes(town, town.alice.build([none])) == ["op_too_few_offers"]


def test_a_failed_path_payment_shows_no_converted_amount(town: Town) -> None:
    tx = town.settle(town.alice.path_send(town.bob.account_id, "8", USD, dest_min="2"))
    assert town.record(tx)["amount"] == "0.0000000"
    tx = town.settle(town.alice.path_receive(town.bob.account_id, "8", USD, send_max="2"))
    assert town.record(tx)["source_amount"] == "0.0000000"


def test_a_merge_moves_everything_and_tells_it_only_in_the_result(town: Town) -> None:
    alice, bob = town.lumens(town.alice), town.lumens(town.bob)

    tx = town.settle(town.alice.build([AccountMerge(town.bob.account_id)]))

    results = xdr.TransactionResult.from_xdr(tx.result_xdr).result.results
    assert results is not None
    assert results[0].tr is not None
    assert results[0].tr.account_merge_result is not None
    balance = results[0].tr.account_merge_result.source_account_balance
    assert balance is not None
    assert balance.int64 == alice - 100
    assert town.lumens(town.bob) == bob + alice - 100
    assert town.ledger.state.account(town.alice.account_id) is None
    assert "amount" not in town.record(tx)


def test_a_merge_of_an_account_with_a_trust_line_fails(town: Town) -> None:
    merge = town.bob.build([AccountMerge(town.alice.account_id)])
    assert codes(town, merge) == ["op_has_sub_entries"]


def test_a_merged_account_that_is_made_again_does_not_reuse_its_sequence_numbers(
    town: Town,
) -> None:
    used = town.ledger.next_sequence(town.alice.account_id)
    town.settle(town.alice.build([AccountMerge(town.bob.account_id)]))
    town.settle(town.root.build([CreateAccount(town.alice.account_id, "5")]))
    assert town.ledger.next_sequence(town.alice.account_id) > used


def test_data_and_options_are_kept_in_history(town: Town) -> None:
    operations = [ManageData("config.memo_required", "1"), SetOptions(home_domain="shop.example")]
    tx = town.settle(town.bob.build(operations))
    assert [op.type for op in town.operations(tx)] == ["manage_data", "set_options"]
    assert [op.is_payment for op in town.operations(tx)] == [False, False]
    assert town.ledger.state.data(town.bob.account_id, "config.memo_required") == b"1"


def test_a_fee_bump_is_paid_by_its_own_source(town: Town) -> None:
    alice, bob = town.lumens(town.alice), town.lumens(town.bob)
    inner = town.alice.pay(town.bob.account_id, "1")

    tx = town.settle(town.bob.fee_bump(inner, fee=150))

    assert town.lumens(town.alice) == alice - 10_000_000
    assert town.lumens(town.bob) == bob + 10_000_000 - 200, "the base fee, once more for the bump"
    assert (tx.max_fee, tx.inner_max_fee, tx.fee_charged) == (300, 100, 200)
    assert tx.inner_hash == inner.hash_hex() != tx.hash
    result = xdr.TransactionResult.from_xdr(tx.result_xdr)
    pair = result.result.inner_result_pair
    assert pair is not None
    assert pair.transaction_hash.hash == inner.hash()
    assert (result.fee_charged.int64, pair.result.fee_charged.int64) == (200, 0)
    assert result_codes(result) == {
        "transaction": "tx_fee_bump_inner_success",
        "inner_transaction": "tx_success",
        "operations": ["op_success"],
    }
    assert town.ledger.history.tx(inner.hash_hex()) is tx


def test_bad_sequence_numbers_are_refused(town: Town) -> None:
    first = town.alice.pay(town.bob.account_id, "1")
    again = Wallet(town.alice.keypair, town.ledger.passphrase, lambda _: first.transaction.sequence)
    town.settle(first)
    assert refused_with(town, again.pay(town.bob.account_id, "2")) == "tx_bad_seq"


def test_an_envelope_that_waits_already_is_taken_once(town: Town) -> None:
    envelope = town.alice.pay(town.bob.account_id, "1").to_xdr()
    town.ledger.submit(envelope)
    town.ledger.submit(envelope)
    assert town.close().operations == 1


def test_signatures_are_checked_against_network_and_key(town: Town) -> None:
    other_network = Wallet(
        town.alice.keypair, Network.TESTNET_NETWORK_PASSPHRASE, town.ledger.next_sequence
    )
    assert refused_with(town, other_network.pay(town.bob.account_id, "1")) == "tx_bad_auth"

    stolen = town.alice.pay(town.bob.account_id, "1")
    stolen.signatures = []
    stolen.sign(town.bob.keypair)
    assert refused_with(town, stolen) == "tx_bad_auth"

    noisy = town.alice.pay(town.bob.account_id, "1")
    noisy.sign(town.bob.keypair)
    assert refused_with(town, noisy) == "tx_bad_auth_extra"


def test_an_operation_of_another_source_needs_its_signature(town: Town) -> None:
    payment = Payment(town.issuer.account_id, NATIVE, "1", source=town.bob.account_id)
    envelope = town.alice.build([payment])
    with pytest.raises(TxRefused) as caught:
        town.ledger.submit(envelope.to_xdr())
    assert result_codes(caught.value.result)["operations"] == ["op_bad_auth"]

    envelope.sign(town.bob.keypair)
    tx = town.settle(envelope)
    assert town.record(tx)["from"] == town.bob.account_id
    assert tx.source.account_id == town.alice.account_id


def test_time_bounds_are_judged_by_the_ledgers_clock(town: Town) -> None:
    now = int(town.ledger.latest.closed_at.timestamp())
    pay = [Payment(town.bob.account_id, NATIVE, "1")]
    early = town.alice.build(pay, time_bounds=TimeBounds(now + 60, 0))
    assert refused_with(town, early) == "tx_too_early"

    expiring = town.alice.build(pay, time_bounds=TimeBounds(0, now + 3))
    key = town.ledger.submit(expiring.to_xdr()).hash.hex()
    closed = town.close(seconds=5)
    assert result_codes(closed.refused[key])["transaction"] == "tx_too_late"
    assert town.ledger.history.tx(key) is None


def test_an_unknown_source_and_a_small_fee_are_refused(town: Town) -> None:
    ghost = Wallet(Keypair.random(), town.ledger.passphrase, lambda _: 1)
    assert refused_with(town, ghost.pay(town.bob.account_id, "1")) == "tx_no_source_account"
    cheap = town.alice.pay(town.bob.account_id, "1")
    cheap.transaction.fee = 99
    cheap.signatures = []
    cheap.sign(town.alice.keypair)
    assert refused_with(town, cheap) == "tx_insufficient_fee"


@pytest.mark.parametrize(
    "text", ["", "AAAA", "!", "AAAAAgAAAAA=", base64.b64encode(b"x" * 200).decode()]
)
def test_garbage_is_malformed(town: Town, text: str) -> None:
    with pytest.raises(MalformedEnvelope):
        town.ledger.submit(text)


def test_the_same_envelopes_give_the_same_ledgers(town: Town) -> None:
    envelopes = []
    for amount in ("1", "2.5"):
        envelopes.append(town.alice.pay(town.bob.account_id, amount).to_xdr())
        town.ledger.submit(envelopes[-1])
    town.close()
    twin = Ledger(START)
    for closed in town.ledger.history.ledgers[1:]:
        for tx in town.ledger.history.transactions:
            if tx.ledger == closed.sequence:
                twin.submit(tx.envelope_xdr)
        twin.close(closed.closed_at)
    assert [ledger.hash for ledger in twin.history.ledgers] == [
        ledger.hash for ledger in town.ledger.history.ledgers
    ]


def test_a_ledger_never_closes_before_the_last_one(town: Town) -> None:
    with pytest.raises(ValueError, match="closed_at"):
        town.ledger.close(town.ledger.latest.closed_at - timedelta(seconds=1))
    with pytest.raises(ValueError, match="aware"):
        town.ledger.close(town.ledger.latest.closed_at.replace(tzinfo=None))


def test_headers_are_chained_and_parse(town: Town) -> None:
    ledgers = town.ledger.history.ledgers
    for before, after in pairwise(ledgers):
        header = xdr.LedgerHeader.from_xdr(after.header_xdr)
        assert header.previous_ledger_hash.hash.hex() == before.hash == after.previous_hash
        assert header.ledger_seq.uint32 == after.sequence

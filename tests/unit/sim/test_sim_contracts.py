from collections.abc import Callable

import pytest
from stellar_sdk import Address, ChangeTrust, IdMemo, StrKey, TransactionEnvelope, scval, xdr

from paywatch.sim import TxRefused
from paywatch.sim.ledger import Ledger
from paywatch.sim.results import result_codes
from paywatch.sim.wallet import NATIVE
from support.sim_town import USD, Town

WALLET = StrKey.encode_contract(b"a contract wallet of the future!")


def change(town: Town) -> dict[str, str]:
    """The balance change of the last operation."""
    (found,) = town.ledger.history.operations[-1].details["asset_balance_changes"]
    return dict(found)


def test_a_transfer_to_an_account_is_a_payment_of_the_classic_asset(town: Town) -> None:
    town.settle(town.issuer.pay(town.bob.account_id, "5", USD))
    town.settle(town.alice.build([ChangeTrust(USD)]))

    tx = town.settle(town.bob.transfer(town.alice.account_id, 15_000_000, USD))

    assert tx.successful
    assert town.dollars(town.alice) == 15_000_000
    assert town.ledger.history.operations[-1].is_payment
    assert change(town) == {
        "asset_type": "credit_alphanum4",
        "asset_code": "USD",
        "asset_issuer": town.issuer.account_id,
        "type": "transfer",
        "from": town.bob.account_id,
        "to": town.alice.account_id,
        "amount": "1.5000000",
    }


@pytest.mark.parametrize("muxed_id", [0, 7, 2**64 - 1])
def test_a_muxed_destination_is_the_account_and_its_id_even_if_zero(
    town: Town, muxed_id: int
) -> None:
    town.settle(town.alice.transfer(town.bob.muxed(muxed_id), 5))
    assert change(town)["to"] == town.bob.account_id
    assert change(town)["destination_muxed_id"] == str(muxed_id)
    credited = town.ledger.history.operations[-1].effects[1]
    assert credited.account.account_muxed == town.bob.muxed(muxed_id)


def test_from_the_issuer_it_is_a_mint_and_to_the_issuer_a_burn(town: Town) -> None:
    town.settle(town.issuer.transfer(town.bob.account_id, 50, USD))
    assert (change(town)["type"], "from" in change(town)) == ("mint", False)
    town.settle(town.bob.transfer(town.issuer.account_id, 20, USD))
    assert (change(town)["type"], "to" in change(town)) == ("burn", False)
    assert town.dollars(town.bob) == 30


def test_a_contract_wallet_pays_and_is_paid(town: Town) -> None:
    town.settle(town.alice.transfer(WALLET, 100))
    assert change(town)["to"] == WALLET
    balance = town.lumens(town.bob)

    town.settle(town.alice.transfer(town.bob.muxed(9), 60, sender=WALLET))

    assert change(town)["from"] == WALLET
    assert town.lumens(town.bob) == balance + 60
    assert town.ledger.state.contract_balance(WALLET, NATIVE) == 40
    operation = town.ledger.history.operations[-1]
    assert operation.participants == {town.alice.account_id, town.bob.account_id}
    assert [e.type for e in operation.effects] == ["contract_debited", "account_credited"]


def test_an_amount_may_need_more_than_64_bits(town: Town) -> None:
    town.settle(town.issuer.transfer(WALLET, 2**100, USD))
    assert change(town)["amount"] == "126765060022822940149670.3205376"


TRAPS: dict[str, Callable[[Town], TransactionEnvelope]] = {
    "underfunded": lambda t: t.alice.transfer(t.bob.account_id, 10**15),
    "negative": lambda t: t.alice.transfer(t.bob.account_id, -1),
    "somebody else's": lambda t: t.alice.transfer(t.bob.account_id, 1, sender=t.bob.account_id),
    "no trust": lambda t: t.issuer.transfer(t.alice.account_id, 1, USD),
    "no such contract": lambda t: t.alice.transfer(WALLET, 1, t.issuer.asset("NEW")),
}


@pytest.mark.parametrize("name", TRAPS)
def test_a_call_that_traps_is_a_failed_transaction_and_no_payment(town: Town, name: str) -> None:
    tx = town.settle(TRAPS[name](town))
    result = result_codes(xdr.TransactionResult.from_xdr(tx.result_xdr))
    assert result == {"transaction": "tx_failed", "operations": ["op_trapped"]}
    operation = town.ledger.history.operations[-1]
    assert operation.details["asset_balance_changes"] is None
    assert not operation.is_payment


def test_a_contract_call_carries_no_memo_and_comes_alone(town: Town) -> None:
    call = town.alice.transfer(town.bob.account_id, 1).transaction
    for operations, memo in ((call.operations, IdMemo(1)), (call.operations * 2, None)):
        envelope = town.alice.build(operations, memo, resource_fee=10)
        with pytest.raises(TxRefused):
            town.ledger.submit(envelope.to_xdr())


def test_the_event_in_the_meta_is_the_contracts_own(town: Town) -> None:
    tx = town.settle(town.alice.transfer(town.bob.muxed(9), 60))
    meta = xdr.TransactionMeta.from_xdr(tx.meta_xdr).v4
    assert meta is not None
    (event,) = meta.operations[0].events
    assert event.contract_id is not None
    contract = Address.from_raw_contract(event.contract_id.contract_id.hash).address
    assert contract == NATIVE.contract_id(town.ledger.passphrase)
    assert event.body.v0 is not None
    topics = [scval.to_native(topic) for topic in event.body.v0.topics]
    parties = [Address(town.alice.account_id), Address(town.bob.account_id)]
    assert topics == ["transfer", *parties, "native"]
    data = scval.to_native(event.body.v0.data)
    assert data == {"amount": 60, "to_muxed_id": 9}


def test_an_asset_is_known_by_its_contract_once_somebody_trusts_it(town: Town) -> None:
    ledger: Ledger = town.ledger
    assert ledger.asset_of_contract(USD.contract_id(ledger.passphrase)) == USD
    assert ledger.asset_of_contract(WALLET) is None

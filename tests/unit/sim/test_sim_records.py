import base64

import pytest
from stellar_sdk import (
    AccountMerge,
    CreateAccount,
    HashMemo,
    IdMemo,
    Keypair,
    ManageData,
    MuxedAccount,
    Payment,
    ReturnHashMemo,
    SetOptions,
    TextMemo,
)

from paywatch.sim.ingest import memo_fields, scrub
from paywatch.sim.records import account_record, effect_record, ledger_record
from support.sim_town import URL, USD, Town


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"order-1", "order-1"),
        (b"", ""),
        (b"\0", ""),
        (b"a\0b", "ab"),
        (b"\xff", "\ufffd"),
        (b"a\xe2\x82", "a\ufffd\ufffd"),  # Go marks each byte of a cut sequence, Python one
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),  # a lone surrogate
        (b"\xf0\x9f\x92\xb8", "\U0001f4b8"),
    ],
)
def test_a_text_memo_is_scrubbed_as_horizon_does_and_exact_as_bytes(raw: bytes, shown: str) -> None:
    assert scrub(raw) == shown
    assert memo_fields(TextMemo(raw)) == {
        "memo": shown,
        "memo_bytes": base64.b64encode(raw).decode(),
        "memo_type": "text",
    }


def test_other_memos_are_written_by_type() -> None:
    assert memo_fields(IdMemo(2**64 - 1)) == {"memo": "18446744073709551615", "memo_type": "id"}
    expected = base64.b64encode(bytes(32)).decode()
    assert memo_fields(HashMemo(bytes(32))) == {"memo": expected, "memo_type": "hash"}
    assert memo_fields(ReturnHashMemo(bytes(32))) == {"memo": expected, "memo_type": "return"}


def test_no_memo_leaves_the_field_out_but_an_empty_one_does_not(town: Town) -> None:
    without = town.tx_record(town.settle(town.alice.pay(town.bob.account_id, "1")))
    empty = town.settle(town.alice.pay(town.bob.account_id, "1", memo=TextMemo("")))
    assert "memo" not in without
    assert "memo_bytes" not in without
    assert (town.tx_record(empty)["memo"], town.tx_record(empty)["memo_bytes"]) == ("", "")


def test_a_muxed_destination_is_kept_and_an_id_of_zero_is_dropped(town: Town) -> None:
    seven = town.record(town.settle(town.alice.pay(town.bob.muxed(7), "1")))
    zero = town.record(town.settle(town.alice.pay(town.bob.muxed(0), "1")))

    assert (seven["to"], seven["to_muxed_id"]) == (town.bob.account_id, "7")
    assert seven["to_muxed"] == town.bob.muxed(7)
    assert zero["to_muxed"] == town.bob.muxed(0)
    assert "to_muxed_id" not in zero


def test_a_muxed_source_is_kept_in_operation_transaction_and_effects(town: Town) -> None:
    source = town.alice.muxed(2**64 - 1)

    tx = town.settle(town.alice.pay(town.bob.account_id, "1", source=source))

    record, tx_record = town.record(tx), town.tx_record(tx)
    assert (record["source_account_muxed"], record["from_muxed"]) == (source, source)
    assert record["from_muxed_id"] == "18446744073709551615"
    assert (tx_record["account_muxed"], tx_record["fee_account_muxed"]) == (source, source)
    debited = [e for e in town.operations(tx)[0].effects if e.type == "account_debited"]
    assert effect_record(debited[0], URL)["account_muxed"] == source


def test_a_fee_bump_shows_the_outer_hash_and_the_inner_one_beside_it(town: Town) -> None:
    inner = town.alice.pay(town.bob.account_id, "1", memo=IdMemo(5))
    tx = town.settle(town.bob.fee_bump(inner))

    record = town.tx_record(tx)

    assert record["hash"] == record["id"] == tx.hash != inner.hash_hex()
    assert record["fee_account"] == town.bob.account_id
    assert record["source_account"] == town.alice.account_id
    assert record["max_fee"] == "200"
    assert record["memo"] == "5"
    assert record["fee_bump_transaction"] == {
        "hash": tx.hash, "signatures": record["signatures"]
    }  # fmt: skip
    assert record["inner_transaction"] == {
        "hash": inner.hash_hex(),
        "signatures": [base64.b64encode(inner.signatures[0].signature).decode()],
        "max_fee": "100",
    }
    assert town.record(tx)["transaction_hash"] == tx.hash


def test_a_failed_operation_keeps_amount_and_memo(town: Town) -> None:
    tx = town.settle(town.alice.pay(town.bob.account_id, "999999", memo=IdMemo(5)))
    record = town.record(tx, join=True)
    assert record["transaction_successful"] is False
    assert record["amount"] == "999999.0000000"
    assert record["transaction"]["successful"] is False
    assert record["transaction"]["memo"] == "5"


def effects(town: Town, tx_operations: int = 1) -> list[tuple[str, str, dict[str, str]]]:
    operations = town.ledger.history.operations[-tx_operations:]
    return [
        (e.type, e.account.account_id, dict(e.details)) for op in operations for e in op.effects
    ]


def test_effects_of_a_payment_and_a_merge(town: Town) -> None:
    alice, bob = town.alice.account_id, town.bob.account_id
    town.settle(town.alice.pay(bob, "1.5"))
    moved = {"asset_type": "native", "amount": "1.5000000"}
    assert effects(town) == [("account_credited", bob, moved), ("account_debited", alice, moved)]

    left = town.lumens(town.alice) - 100
    town.settle(town.alice.build([AccountMerge(bob)]))
    merged = {"asset_type": "native", "amount": f"{left // 10**7}.{left % 10**7:07d}"}
    assert effects(town) == [
        ("account_debited", alice, merged),
        ("account_credited", bob, merged),
        ("account_removed", alice, {}),
    ]


def test_effects_of_a_path_payment_tell_both_sides_and_the_trades(town: Town) -> None:
    town.settle(town.alice.path_receive(town.bob.account_id, "1", USD, send_max="8"))
    found = effects(town)
    assert [kind for kind, _, _ in found] == [
        "account_credited", "account_debited", "trade", "trade"
    ]  # fmt: skip
    assert found[0][2]["amount"] == "1.0000000"
    assert found[1][2] == {"asset_type": "native", "amount": "8.0000000"}
    assert (found[2][2]["sold_amount"], found[2][2]["bought_amount"]) == ("8.0000000", "1.0000000")


def test_effects_of_a_new_account(town: Town) -> None:
    new = Keypair.random().public_key
    town.settle(town.root.build([CreateAccount(new, "5")]))
    assert [kind for kind, _, _ in effects(town)] == [
        "account_created", "account_debited", "signer_created"
    ]  # fmt: skip


def test_effects_are_paged_by_operation_and_order(town: Town) -> None:
    tx = town.settle(town.alice.pay(town.bob.account_id, "1"))
    second = effect_record(town.operations(tx)[0].effects[1], URL)
    op_id = tx.id + 1
    assert second["paging_token"] == f"{op_id}-2"
    assert second["id"] == f"{op_id:019d}-0000000002"


def test_an_account_shows_its_lines_data_and_sequence(town: Town) -> None:
    town.settle(town.issuer.pay(town.bob.account_id, "2.5", USD))
    options = [ManageData("note", b"hi"), SetOptions(home_domain="shop.example")]
    town.settle(town.bob.build(options))

    record = account_record(
        town.bob.account_id, town.ledger.state, URL, town.ledger.latest.closed_at
    )

    assert record["sequence"] == str(town.ledger.next_sequence(town.bob.account_id) - 1)
    assert record["sequence_ledger"] == town.ledger.latest.sequence
    assert record["data"] == {"note": "aGk="}
    assert record["home_domain"] == "shop.example"
    assert record["subentry_count"] == 2
    usd, native = record["balances"]
    assert (usd["balance"], usd["asset_code"], usd["is_authorized"]) == ("2.5000000", "USD", True)
    assert (native["asset_type"], "limit" in native) == ("native", False)


def test_a_ledger_counts_what_is_in_it(town: Town) -> None:
    both = [Payment(town.bob.account_id, USD, "1"), Payment(town.bob.account_id, USD, "2")]
    town.ledger.submit(town.alice.build(both).to_xdr())
    town.ledger.submit(town.bob.pay(town.alice.account_id, "1").to_xdr())
    record = ledger_record(town.close(), URL)
    assert record["successful_transaction_count"] == 1
    assert record["failed_transaction_count"] == 1
    assert (record["operation_count"], record["tx_set_operation_count"]) == (1, 3)


def test_every_amount_has_seven_places(town: Town) -> None:
    tx = town.settle(town.alice.pay(town.bob.account_id, "0.0000001"))
    assert town.record(tx)["amount"] == "0.0000001"


def test_a_muxed_address_names_the_account_that_is_credited(town: Town) -> None:
    record = town.record(town.settle(town.alice.pay(town.bob.muxed(42), "1")))
    assert MuxedAccount.from_account(record["to_muxed"]).account_id == record["to"]

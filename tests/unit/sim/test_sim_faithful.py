"""The simulator's records beside real ones of Horizon.

The real records lie in `data/`, only their long meta cut out. What the simulator leaves out on
purpose: `valid_after` and `valid_before`, which Horizon no longer writes.
"""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from stellar_sdk import (
    AccountMerge,
    Asset,
    AuthorizationFlag,
    ChangeTrust,
    CreateAccount,
    InvokeHostFunction,
    ManageData,
    MuxedAccount,
    Network,
    Operation,
    PathPaymentStrictReceive,
    PathPaymentStrictSend,
    Payment,
    SetOptions,
    Signer,
    TextMemo,
    TransactionEnvelope,
    scval,
    xdr,
)

from paywatch.sim.contracts import Transfer, arguments
from paywatch.sim.details import operation_details
from paywatch.sim.envelopes import read_envelope
from paywatch.sim.ingest import Application, ingest_tx
from paywatch.sim.operations import Outcome
from paywatch.sim.records import operation_record, tx_record
from paywatch.sim.results import operation_result
from support.sim_town import URL, USD, Town

DATA = Path(__file__).parent / "data"
OPERATIONS: list[dict[str, Any]] = json.loads((DATA / "operations.json").read_text())
TRANSACTIONS: list[dict[str, Any]] = json.loads((DATA / "transactions.json").read_text())
BASE = {
    "_links", "id", "paging_token", "transaction_successful", "source_account", "type", "type_i",
    "created_at", "transaction_hash",
}  # fmt: skip
KIND = xdr.OperationType
NO_RESULT = Outcome(operation_result(KIND.PAYMENT))


def asset(record: dict[str, Any], prefix: str = "") -> Asset:
    if record[f"{prefix}asset_type"] == "native":
        return Asset.native()
    return Asset(record[f"{prefix}asset_code"], record[f"{prefix}asset_issuer"])


def invocation(record: dict[str, Any]) -> InvokeHostFunction:
    values = [xdr.SCVal.from_xdr(parameter["value"]) for parameter in record["parameters"]]
    address, function, *args = values
    assert address.address is not None
    assert function.sym is not None
    call = xdr.InvokeContractArgs(address.address, function.sym, args)
    kind = xdr.HostFunctionType.HOST_FUNCTION_TYPE_INVOKE_CONTRACT
    return InvokeHostFunction(xdr.HostFunction(kind, invoke_contract=call))


def again(record: dict[str, Any]) -> tuple[Operation, Outcome]:
    """The operation that a real record is about, and its outcome."""
    r = record
    make: dict[str, Callable[[], Operation]] = {
        "create_account": lambda: CreateAccount(r["account"], r["starting_balance"]),
        "payment": lambda: Payment(r["to"], asset(r), r["amount"]),
        "account_merge": lambda: AccountMerge(r["into"]),
        "manage_data": lambda: ManageData(r["name"], base64.b64decode(r["value"])),
        "change_trust": lambda: ChangeTrust(asset(r), r["limit"]),
        "set_options": lambda: set_options(r),
        "invoke_host_function": lambda: invocation(r),
        "path_payment_strict_receive": lambda: PathPaymentStrictReceive(
            r["to"], asset(r, "source_"), r["source_max"], asset(r), r["amount"], path(r)
        ),
        "path_payment_strict_send": lambda: PathPaymentStrictSend(
            r["to"], asset(r, "source_"), r["source_amount"], asset(r), r["destination_min"],
            path(r),
        ),
    }  # fmt: skip
    outcome = NO_RESULT  # the real strict receive failed
    if r["type"] == "path_payment_strict_send":
        outcome = Outcome(received(r))
    if r["type"] == "invoke_host_function":
        outcome = Outcome(NO_RESULT.result, transfer(r))
    return make[r["type"]](), outcome


def path(record: dict[str, Any]) -> list[Asset]:
    return [asset(hop) for hop in record["path"]]


def flags(record: dict[str, Any], field: str) -> AuthorizationFlag | None:
    return AuthorizationFlag(sum(record[field])) if field in record else None


def set_options(record: dict[str, Any]) -> SetOptions:
    key, weight = record.get("signer_key"), record.get("signer_weight")
    return SetOptions(
        inflation_dest=record.get("inflation_dest"),
        master_weight=record.get("master_key_weight"),
        low_threshold=record.get("low_threshold"),
        med_threshold=record.get("med_threshold"),
        high_threshold=record.get("high_threshold"),
        home_domain=record.get("home_domain"),
        signer=Signer.ed25519_public_key(key, weight or 0) if key else None,
        set_flags=flags(record, "set_flags"),
        clear_flags=flags(record, "clear_flags"),
    )


def received(record: dict[str, Any]) -> xdr.OperationResult:
    destination = MuxedAccount(record["to"]).to_xdr_object().ed25519
    assert destination is not None
    key = xdr.PublicKey(xdr.PublicKeyType.PUBLIC_KEY_TYPE_ED25519, destination)
    amount = xdr.Int64(Operation.to_xdr_amount(record["amount"]))
    last = xdr.SimplePaymentResult(xdr.AccountID(key), asset(record).to_xdr_object(), amount)
    success = xdr.PathPaymentStrictSendResultSuccess([], last)
    return operation_result(KIND.PATH_PAYMENT_STRICT_SEND, success=success)


def transfer(record: dict[str, Any]) -> Transfer:
    (change,) = record["asset_balance_changes"]
    values = arguments(invocation(record))
    assert values is not None
    return Transfer(
        change["type"],
        scval.from_address(values[0]).address,
        asset(change),
        change["from"],
        change["to"],
        Operation.to_xdr_amount(change["amount"]),
        int(change["destination_muxed_id"]),
    )


@pytest.mark.parametrize("real", OPERATIONS, ids=lambda r: f"{r['type']}-{r['id']}")
def test_details_of_a_real_operation_are_written_as_horizon_wrote_them(
    real: dict[str, Any],
) -> None:
    operation, outcome = again(real)
    source = MuxedAccount.from_account(real["source_account"])
    ok = real["transaction_successful"]

    details = operation_details(operation, source, outcome, successful=ok)

    expected = {name: value for name, value in real.items() if name not in BASE}
    assert details == expected
    assert list(details) == list(expected), "the fields are in Horizon's order too"


@pytest.mark.parametrize(
    "real",
    [tx for tx in TRANSACTIONS if tx["created_at"] > "2020-11"],  # envelopes before were V0
    ids=lambda r: r["hash"][:8],
)
def test_a_real_transaction_is_written_as_horizon_wrote_it(real: dict[str, Any]) -> None:
    base_url = real["_links"]["self"]["href"].partition("/transactions")[0]
    networks = (Network.PUBLIC_NETWORK_PASSPHRASE, Network.TESTNET_NETWORK_PASSPHRASE)
    readings = [read_envelope(real["envelope_xdr"], network) for network in networks]
    (signed,) = [signed for signed in readings if signed.hash.hex() == real["hash"]]
    done = Application(
        signed=signed,
        ledger=real["ledger"],
        order=int(real["paging_token"]) >> 12 & 0xFFFFF,
        closed_at=datetime.strptime(real["created_at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC),
        result=xdr.TransactionResult.from_xdr(real["result_xdr"]),
        successful=real["successful"],
        fee_changes=(),
        sequence_changes=(),
        steps=(),
    )

    record = tx_record(ingest_tx(done), base_url)

    cut = ("result_meta_xdr", "fee_meta_xdr", "_links")
    gone = ("valid_after", "valid_before")
    expected = {name: value for name, value in real.items() if name not in gone}
    assert set(record) == set(expected)
    assert {k: v for k, v in record.items() if k not in cut} == {
        k: v for k, v in expected.items() if k not in cut
    }
    assert targets(record) == targets(real)


def keys_of(record: dict[str, Any]) -> tuple[list[str], list[str]]:
    return list(record), list(record["_links"])


def by_shape(records: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(r["type"], r.get("asset_type", "")): r for r in records if "home_domain" not in r}


REAL = by_shape(OPERATIONS)


@pytest.mark.parametrize("shape", REAL, ids="-".join)
def test_each_type_of_operation_has_exactly_the_fields_of_a_real_one(
    shape: tuple[str, str], town: Town
) -> None:
    live_through_everything(town)
    records = [operation_record(op, URL) for op in town.ledger.history.operations]

    (record,) = [r for key, r in by_shape(records).items() if key == shape]

    real = REAL[shape]
    assert keys_of(record) == keys_of(real)
    assert {k: type(v) for k, v in record.items()} == {k: type(v) for k, v in real.items()}
    if shape[0] == "invoke_host_function":
        assert keys_in(record["asset_balance_changes"]) == keys_in(real["asset_balance_changes"])
        assert keys_in(record["parameters"]) == keys_in(real["parameters"])


def keys_in(items: list[dict[str, Any]]) -> set[tuple[str, ...]]:
    return {tuple(item) for item in items}


def live_through_everything(town: Town) -> None:
    """Every operation that real records are at hand of, in their shapes."""
    alice, bob, issuer = town.alice, town.bob, town.issuer
    town.settle(alice.build([SetOptions(master_weight=1)]))
    town.settle(bob.build([ManageData("a", b"b"), ChangeTrust(USD)]))
    town.settle(issuer.pay(bob.account_id, "10", USD))
    town.settle(alice.build([ChangeTrust(USD)]))
    town.settle(bob.transfer(alice.muxed(7), 5, USD))
    town.settle(alice.pay(bob.account_id, "1"))
    town.settle(alice.path_send(bob.account_id, "1", USD, dest_min="0.1"))
    town.ledger.rates.set(USD, Asset.native(), Fraction(8))
    receive = PathPaymentStrictReceive(alice.account_id, USD, "9", Asset.native(), "1", [])
    native = PathPaymentStrictReceive(
        alice.account_id, Asset.native(), "9", Asset.native(), "1", []
    )
    town.settle(bob.build([receive, native]))
    carol = town.wallet("carol")
    town.settle(town.root.build([CreateAccount(carol.account_id, "5")]))
    town.settle(carol.build([AccountMerge(alice.account_id)]))


def test_a_joined_operation_has_exactly_the_fields_of_a_real_one(town: Town) -> None:
    (real,) = json.loads((DATA / "joined.json").read_text())
    record = town.record(town.settle(town.alice.pay(town.bob.account_id, "1")), join=True)
    assert set(record) == set(real)
    assert set(record["transaction"]) == set(real["transaction"])
    assert set(record["transaction"]["_links"]) == set(real["transaction"]["_links"])


def test_a_transaction_with_a_text_memo_has_exactly_the_fields_of_a_real_one(town: Town) -> None:
    (real,) = [tx for tx in TRANSACTIONS if tx.get("memo") == "hello universe"]
    record = town.tx_record(
        town.settle(town.alice.pay(town.bob.account_id, "1", memo=TextMemo("hello universe")))
    )
    assert set(record) == set(real)
    assert (record["memo"], record["memo_bytes"]) == (real["memo"], real["memo_bytes"])
    assert {k: type(v) for k, v in record.items()} == {k: type(v) for k, v in real.items()}


def test_what_xdr_there_is_parses(town: Town) -> None:
    live_through_everything(town)
    for tx in town.ledger.history.transactions:
        record = tx_record(tx, URL)
        envelope = TransactionEnvelope.from_xdr(record["envelope_xdr"], town.ledger.passphrase)
        assert envelope.hash_hex() == record["hash"]
        result = xdr.TransactionResult.from_xdr(record["result_xdr"])
        assert str(result.fee_charged.int64) == record["fee_charged"]
        meta = xdr.TransactionMeta.from_xdr(record["result_meta_xdr"])
        assert meta.v4 is not None
        assert len(meta.v4.operations) == record["operation_count"]
        assert (
            len(xdr.LedgerEntryChanges.from_xdr(record["fee_meta_xdr"]).ledger_entry_changes) == 2
        )


def targets(record: dict[str, Any]) -> dict[str, str]:
    """Where the links point; one real record has lost the parameters of its templates."""
    return {name: link["href"].partition("{")[0] for name, link in record["_links"].items()}

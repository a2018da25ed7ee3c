"""What a record means: who is paid, how much of what, and what is no credit at all."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from stellar_sdk import Keypair, MuxedAccount, xdr

from paywatch.domain.ledger import Asset, Credit, LedgerRecord, Memo, MemoType, Position
from paywatch.errors import RecordError
from paywatch.horizon.records import parse_record

GOLDEN = Path(__file__).parent / "golden"
MERCHANT = Keypair.from_raw_ed25519_seed(b"merchant".ljust(32, b"\1")).public_key
PAYER = Keypair.from_raw_ed25519_seed(b"payer".ljust(32, b"\2")).public_key
ISSUER = Keypair.from_raw_ed25519_seed(b"issuer".ljust(32, b"\3")).public_key
CONTRACT = "CA3D5KRYM6CB7OWQ6TWYRR3Z4T7GNZLKERYNZGGA5SOAOPIFY6YQGAXE"
OUTER, INNER = "aa" * 32, "bb" * 32
USDC = {"asset_type": "credit_alphanum4", "asset_code": "USDC", "asset_issuer": ISSUER}
PLACE = Position.of(100, 2, 1)


def tx(**fields: Any) -> dict[str, Any]:
    return {"hash": OUTER, "successful": True, "memo_type": "none"} | fields


def operation(kind: str, **fields: Any) -> dict[str, Any]:
    common = {
        "id": str(PLACE),
        "paging_token": str(PLACE),
        "transaction_successful": True,
        "source_account": PAYER,
        "type": kind,
        "created_at": "2026-08-01T10:00:00Z",
        "transaction_hash": OUTER,
        "transaction": tx(),
    }
    return common | fields


def payment(**fields: Any) -> dict[str, Any]:
    money = {"asset_type": "native", "from": PAYER, "to": MERCHANT, "amount": "12.5000000"}
    return operation("payment", **(money | fields))


def call(*changes: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return operation("invoke_host_function", asset_balance_changes=list(changes), **fields)


def transfer(**fields: Any) -> dict[str, Any]:
    money = {"type": "transfer", "from": PAYER, "to": MERCHANT, "amount": "1.0000000"}
    return USDC | money | fields


def read(record: dict[str, Any]) -> LedgerRecord:
    parsed = parse_record(record, {MERCHANT})
    assert parsed is not None
    return parsed


def credits_of(record: dict[str, Any]) -> tuple[Credit, ...]:
    parsed = parse_record(record, {MERCHANT})
    if parsed is None:
        return ()
    assert parsed.problem is None
    return parsed.credits


def credit_of(record: dict[str, Any]) -> Credit:
    (credit,) = credits_of(record)
    return credit


def problem_of(record: dict[str, Any]) -> str:
    parsed = read(record)
    assert parsed.credits == ()
    assert parsed.problem is not None
    assert parsed.source is record
    return parsed.problem


def test_lesson_1_the_memo_is_read_where_horizon_writes_it() -> None:
    real = json.loads((GOLDEN / "0000000012884905985-create_account-joined.json").read_text())
    record = real["record"]
    assert "transaction_memo" not in record  # the field that OrbitStream's tests invented
    parsed = parse_record(record, {record["account"]})
    assert parsed is not None
    assert parsed.credits[0].memo == Memo(MemoType.TEXT, b"hello world")


def test_lesson_5_only_the_asset_that_was_paid_is_credited() -> None:
    spoof = {"asset_type": "credit_alphanum4", "asset_code": "XLM", "asset_issuer": PAYER}
    other = USDC | {"asset_issuer": PAYER}
    assert credit_of(payment(**spoof)).asset == Asset("XLM", PAYER) != Asset.native()
    assert credit_of(payment(**other)).asset == Asset("USDC", PAYER) != Asset("USDC", ISSUER)


def test_lesson_5_an_outgoing_payment_is_no_credit() -> None:
    assert credits_of(payment(**{"from": MERCHANT, "to": PAYER})) == ()


def test_lesson_5_a_failed_payment_is_no_credit() -> None:
    failed = tx(successful=False)
    assert credits_of(payment(transaction_successful=False, transaction=failed)) == ()


def test_lesson_5_amounts_are_whole_stroops() -> None:
    assert credit_of(payment(amount="0.0000001")).amount == 1
    assert credit_of(payment(amount="922337203685.4775807")).amount == 2**63 - 1
    assert "amount" in problem_of(payment(amount="1e3"))
    assert "amount" in problem_of(payment(amount=12.5))


def test_lesson_11_every_balance_change_of_a_call_is_read() -> None:
    record = call(
        transfer(amount="1.0000000"),
        transfer(to=PAYER),
        transfer(amount="2.0000000", destination_muxed_id="7"),
    )
    found = [(credit.change_index, credit.amount, credit.muxed_id) for credit in credits_of(record)]
    assert found == [(0, 10_000_000, None), (2, 20_000_000, 7)]


def test_lesson_11_a_path_payment_credits_what_was_received() -> None:
    sent = {"source_amount": "57.4988800", "source_asset_type": "native"}
    for kind in ("path_payment", "path_payment_strict_receive", "path_payment_strict_send"):
        record = payment(type=kind, amount="0.0005045", **USDC, **sent)
        credit = credit_of(record)
        assert (credit.amount, credit.asset) == (5045, Asset("USDC", ISSUER))


def test_a_created_account_is_credited_with_its_starting_balance() -> None:
    created = operation("create_account", funder=PAYER, account=MERCHANT, starting_balance="20.0")
    credit = credit_of(created)
    assert (credit.amount, credit.payer, credit.asset) == (200_000_000, PAYER, Asset.native())
    assert credits_of(created | {"starting_balance": "0.0000000"}) == ()  # sponsored


def test_a_payment_to_oneself_nets_to_zero() -> None:
    to_self = {"from": MERCHANT, "to": MERCHANT}
    assert credits_of(payment(**to_self)) == ()
    first = MuxedAccount(MERCHANT, 1).account_muxed
    second = MuxedAccount(MERCHANT, 2).account_muxed
    muxed = {"from_muxed": first, "to_muxed": second, "to_muxed_id": "2"}
    assert credits_of(payment(**to_self, **muxed)) == ()
    assert credits_of(payment(type="path_payment_strict_send", **to_self, **USDC)) == ()
    assert credits_of(call(transfer(**{"from": MERCHANT}))) == ()


def test_the_muxed_id_zero_is_decoded_from_the_address() -> None:
    muxed = MuxedAccount(MERCHANT, 0).account_muxed
    assert credit_of(payment(to_muxed=muxed)).muxed_id == 0
    assert credit_of(payment()).muxed_id is None
    largest = MuxedAccount(MERCHANT, 2**64 - 1).account_muxed
    paid = payment(to_muxed=largest, to_muxed_id="18446744073709551615")
    assert credit_of(paid).muxed_id == 2**64 - 1


def test_a_muxed_address_must_be_the_payees_and_agree_with_its_id() -> None:
    other = MuxedAccount(PAYER, 5).account_muxed
    assert "to_muxed" in problem_of(payment(to_muxed=other))
    assert "to_muxed" in problem_of(payment(to_muxed="M" + "A" * 68))
    mine = MuxedAccount(MERCHANT, 5).account_muxed
    assert "to_muxed_id" in problem_of(payment(to_muxed=mine, to_muxed_id="6"))


def merge_result(*moved: int, fee_bump: bool = False) -> str:
    """Encode the result of a transaction of merges, by the SDK."""
    codes, kind = xdr.AccountMergeResultCode, xdr.OperationType.ACCOUNT_MERGE
    results = [
        xdr.OperationResult(
            xdr.OperationResultCode.opINNER,
            xdr.OperationResultTr(
                kind,
                account_merge_result=xdr.AccountMergeResult(
                    codes.ACCOUNT_MERGE_SUCCESS, xdr.Int64(stroops)
                ),
            ),
        )
        for stroops in moved
    ]
    fee, success = xdr.Int64(100), xdr.TransactionResultCode.txSUCCESS
    outer = xdr.TransactionResultResult(success, results=results)
    if fee_bump:
        inner = xdr.InnerTransactionResult(
            fee,
            xdr.InnerTransactionResultResult(success, results=results),
            xdr.InnerTransactionResultExt(0),
        )
        pair = xdr.InnerTransactionResultPair(xdr.Hash(bytes.fromhex(INNER)), inner)
        bumped = xdr.TransactionResultCode.txFEE_BUMP_INNER_SUCCESS
        outer = xdr.TransactionResultResult(bumped, inner_result_pair=pair)
    return xdr.TransactionResult(fee, outer, xdr.TransactionResultExt(0)).to_xdr()


def merge(result_xdr: str, at: Position = PLACE) -> dict[str, Any]:
    return operation(
        "account_merge",
        id=str(at),
        paging_token=str(at),
        account=PAYER,
        into=MERCHANT,
        transaction=tx(result_xdr=result_xdr),
    )


@pytest.mark.parametrize("fee_bump", [False, True])
def test_a_merge_moves_what_the_result_of_its_operation_says(fee_bump: bool) -> None:
    encoded = merge_result(5, 7, fee_bump=fee_bump)
    assert credit_of(merge(encoded)).amount == 5
    assert credit_of(merge(encoded, Position.of(100, 2, 2))).amount == 7


def test_a_merge_whose_result_says_nothing_is_a_problem() -> None:
    assert "result_xdr" in problem_of(merge(merge_result(5), Position.of(100, 2, 2)))
    assert "result_xdr" in problem_of(merge("AAAA"))
    assert "result_xdr" in problem_of(merge(merge_result(5), Position.of(100, 2, 0)))
    payments = json.loads((GOLDEN / "tx-65bdbaa1d80a.json").read_text())["record"]["result_xdr"]
    assert "not a merge" in problem_of(merge(payments))


def test_a_merge_into_a_muxed_address() -> None:
    muxed = MuxedAccount(MERCHANT, 9).account_muxed
    record = merge(merge_result(5)) | {"into_muxed": muxed, "into_muxed_id": "9"}
    assert credit_of(record).muxed_id == 9


def test_a_mint_is_paid_by_the_issuer() -> None:
    minted = transfer(type="mint")
    del minted["from"]
    assert credit_of(call(minted)).payer == ISSUER


def test_what_a_contract_takes_or_sends_elsewhere_is_no_credit() -> None:
    burned = transfer(type="burn", **{"from": MERCHANT})
    del burned["to"]
    clawed = burned | {"type": "clawback"}
    assert credits_of(call(burned, clawed, transfer(to=CONTRACT))) == ()
    assert credits_of(call() | {"asset_balance_changes": None}) == ()
    assert credit_of(call(transfer(**{"from": CONTRACT}))).payer == CONTRACT


def test_an_i128_amount_above_64_bits_is_a_problem() -> None:
    assert credit_of(call(transfer(amount="922337203685.4775807"))).amount == 2**63 - 1
    assert "amount" in problem_of(call(transfer(amount="922337203685.4775808")))
    elsewhere = transfer(to=PAYER, amount="922337203685.4775808")
    assert credits_of(call(elsewhere, transfer())) != ()


def test_a_fee_bump_is_known_by_its_outer_hash_and_keeps_the_inner_one() -> None:
    bump = {"inner_transaction": {"hash": INNER}, "fee_bump_transaction": {"hash": OUTER}}
    listed = credit_of(payment(transaction=tx(**bump)))
    assert (listed.tx_hash, listed.inner_tx_hash) == (OUTER, INNER)
    asked_by_inner = payment(transaction_hash=INNER, transaction=tx(**bump) | {"hash": INNER})
    assert credit_of(asked_by_inner).tx_hash == OUTER


def test_the_embedded_transaction_must_be_the_operations() -> None:
    assert "transaction_hash" in problem_of(payment(transaction=tx(hash=INNER)))
    assert "successful" in problem_of(payment(transaction=tx(successful=False)))
    alone = payment()
    del alone["transaction"]
    assert problem_of(alone).startswith("transaction: missing")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"to": None}, "to"),
        ({"to": MERCHANT.lower()}, "to"),
        ({"from": 7}, "from"),
        ({"type": ["payment"]}, "type"),
        ({"amount": None}, "amount"),
        ({"asset_type": "liquidity_pool_shares"}, "asset_type"),
        (USDC | {"asset_issuer": None}, "asset_issuer"),
        (USDC | {"asset_code": "US DC"}, "asset_code"),
        ({"created_at": "2026-08-01T10:00:00"}, "created_at"),
        ({"created_at": "yesterday"}, "created_at"),
        # What Python takes for a time and RFC 3339 does not.
        ({"created_at": "2026-W31-6T10:00:00Z"}, "created_at"),
        ({"created_at": "20260801T10-0184467440737095516"}, "created_at"),
        ({"created_at": "2026-08-01T10Z"}, "created_at"),
        ({"created_at": "2026-08-01 10:00:00Z"}, "created_at"),
        ({"transaction_successful": "true"}, "transaction_successful"),
        ({"transaction_hash": "xyz"}, "transaction_hash"),
        ({"transaction": tx(memo_type="love")}, "memo_type"),
        ({"transaction": []}, "transaction"),
        ({"to_muxed_id": "-1"}, "to_muxed_id"),
    ],
)
def test_a_field_that_cannot_be_read_is_named(fields: dict[str, Any], named: str) -> None:
    assert named in problem_of(payment(**fields)).split(":")[0]


def test_what_concerns_others_is_dropped_however_broken() -> None:
    assert credits_of(payment(to=PAYER, amount="?", transaction=None)) == ()


def test_an_unknown_type_is_a_problem_only_if_it_names_a_watched_account() -> None:
    assert "type" in problem_of(operation("teleport", receivers=[{"who": MERCHANT}]))
    assert credits_of(operation("teleport", receivers=[{"who": PAYER}])) == ()
    assert "type" in problem_of(call(transfer(type="conjure")))
    assert credits_of(call(transfer(type="conjure", to=PAYER))) == ()
    assert credits_of(operation("claim_claimable_balance", claimant=MERCHANT)) == ()


@pytest.mark.parametrize("token", [None, "", "now", 12, "-5", "9" * 20, "\uff11\uff12"])
def test_a_record_without_a_place_is_an_error(token: object) -> None:
    with pytest.raises(RecordError, match="paging_token"):
        parse_record(payment(paging_token=token, id=token), {MERCHANT})


def test_a_record_of_two_places_is_an_error() -> None:
    with pytest.raises(RecordError, match="paging_token"):
        parse_record(payment(id="1"), {MERCHANT})


def test_times_are_utc() -> None:
    credit = credit_of(payment(created_at="2026-08-01T12:00:00+02:00"))
    assert credit.closed_at.isoformat() == "2026-08-01T10:00:00+00:00"


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@pytest.mark.parametrize(
    ("fields", "memo"),
    [
        ({"memo_type": "id", "memo": "0"}, Memo.of_id(0)),
        ({"memo_type": "id", "memo": str(2**64 - 1)}, Memo.of_id(2**64 - 1)),
        ({"memo_type": "hash", "memo": b64(b"h" * 32)}, Memo(MemoType.HASH, b"h" * 32)),
        ({"memo_type": "return", "memo": b64(b"h" * 32)}, Memo(MemoType.RETURN, b"h" * 32)),
        ({"memo_type": "text", "memo": " 0017 "}, Memo(MemoType.TEXT, b" 0017 ")),
        (
            {"memo_type": "text", "memo": "ab", "memo_bytes": b64(b"a\0b")},
            Memo(MemoType.TEXT, b"a\0b"),
        ),
        (
            {"memo_type": "text", "memo": "\ufffd(", "memo_bytes": b64(b"\xc3(")},
            Memo(MemoType.TEXT, b"\xc3("),
        ),
    ],
)
def test_a_memo_is_its_type_and_bytes(fields: dict[str, str], memo: Memo) -> None:
    assert credit_of(payment(transaction=tx(**fields))).memo == memo


@pytest.mark.parametrize(
    "fields",
    [
        {"memo_type": "none", "memo": "here"},
        {"memo_type": "id", "memo": str(2**64)},
        {"memo_type": "id", "memo": 12},
        {"memo_type": "hash", "memo": b64(b"h" * 31)},
        {"memo_type": "hash", "memo": "not base64!"},
        {"memo_type": "text"},
        {"memo_type": "text", "memo": "\ud800"},
        {"memo_type": "text", "memo": "x" * 29},
        {"memo_type": "text", "memo": "b", "memo_bytes": b64(b"a")},
        {"memo_type": "text", "memo": "b", "envelope_xdr": "AAAA"},
    ],
)
def test_a_memo_that_cannot_be_is_a_problem(fields: dict[str, Any]) -> None:
    assert problem_of(payment(transaction=tx(**fields)))


def test_an_old_text_memo_is_read_from_the_envelope() -> None:
    real = json.loads((GOLDEN / "tx-849fc553ad0a.json").read_text())["record"]
    fields = {name: real[name] for name in ("memo_type", "memo", "envelope_xdr")}
    memo = credit_of(payment(transaction=tx(**fields))).memo
    assert memo.value == base64.b64decode(real["memo_bytes"])

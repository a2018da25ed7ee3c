"""The record parser is total: any JSON is credits, nothing, a problem, or has no place."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from stellar_sdk import Keypair, MuxedAccount

from paywatch.domain.ledger import MAX_STROOPS
from paywatch.errors import RecordError
from paywatch.horizon.records import parse_record

MERCHANT = Keypair.from_raw_ed25519_seed(b"\1" * 32).public_key
PAYER = Keypair.from_raw_ed25519_seed(b"\2" * 32).public_key

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
ADDRESS = st.sampled_from([MERCHANT, PAYER, MuxedAccount(MERCHANT, 0).account_muxed, "C" * 56])
AMOUNT = st.sampled_from(["0.0000000", "1.5000000", "9" * 39, "-1.0", "NaN", "\uff11"])


def near(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly what belongs there, sometimes anything."""
    return strategy | strategy | strategy | JSON


TX = st.fixed_dictionaries(
    {"hash": near(st.just("aa" * 32)), "memo_type": near(st.sampled_from(["none", "text", "id"]))},
    optional={
        "successful": near(st.just(True)),
        "memo": JSON,
        "memo_bytes": JSON,
        "envelope_xdr": JSON | st.binary(max_size=80).map(lambda raw: raw.hex()),
        "result_xdr": JSON,
        "inner_transaction": JSON,
    },
)
CHANGE = st.fixed_dictionaries(
    {"type": near(st.sampled_from(["transfer", "mint", "burn"]))},
    optional={"from": ADDRESS, "to": ADDRESS, "amount": near(AMOUNT), "asset_type": JSON},
)
KINDS = st.sampled_from(
    ["payment", "create_account", "account_merge", "invoke_host_function", "path_payment", "new"]
)
RECORD = st.fixed_dictionaries(
    {"paging_token": near(st.just("429496733697")), "type": near(KINDS)},
    optional={
        "id": near(st.just("429496733697")),
        "transaction_successful": near(st.just(True)),
        "transaction_hash": near(st.just("aa" * 32)),
        "created_at": near(st.just("2026-08-01T10:00:00Z") | st.datetimes().map(str)),
        "asset_type": near(st.just("native")),
        "asset_code": JSON,
        "asset_issuer": JSON,
        "amount": near(AMOUNT),
        "starting_balance": near(AMOUNT),
        "from": near(ADDRESS),
        "to": near(ADDRESS),
        "account": near(ADDRESS),
        "into": near(ADDRESS),
        "funder": near(ADDRESS),
        "to_muxed": near(ADDRESS),
        "to_muxed_id": JSON,
        "asset_balance_changes": near(st.lists(near(CHANGE), max_size=3)),
        "transaction": near(TX),
    },
)


@given(record=RECORD | JSON, watched=st.none() | st.just({MERCHANT}))
def test_any_json_is_read_or_named(record: Any, watched: set[str] | None) -> None:
    try:
        parsed = parse_record(record, watched)
    except RecordError:
        return
    if parsed is None:
        return
    assert bool(parsed.credits) != bool(parsed.problem)
    for credit in parsed.credits:
        assert record["transaction_successful"] is True
        assert 0 < credit.amount <= MAX_STROOPS
        assert credit.account != credit.payer
        assert watched is None or credit.account in watched

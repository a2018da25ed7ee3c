"""Golden pairs: a record as Horizon wrote it beside the credits that it holds for each account.

`golden/` holds every real record that we have (63 operations, 9 of them again with their real
transaction) and, for payments whose transaction is not known, the same record with a transaction
that we made: its `about` says so. `python tests/unit/horizon/test_horizon_golden.py` writes the
expectations of all files anew: read the diff before you believe it.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from paywatch.domain.ledger import Credit
from paywatch.horizon.memos import read_memo
from paywatch.horizon.records import parse_record
from paywatch.horizon.xdr import read_memo_xdr

GOLDEN = Path(__file__).parent / "golden"
OPERATIONS = sorted(GOLDEN.glob("[0-9]*.json"))
TRANSACTIONS = sorted(GOLDEN.glob("tx-*.json"))


def involved(record: Mapping[str, Any]) -> list[str]:
    """List the accounts that the operation itself names."""
    names = ("source_account", "from", "to", "account", "into", "funder", "claimant", "trustor")
    changes = record.get("asset_balance_changes") or []
    found = {fields.get(name) for fields in (record, *changes) for name in names}
    return sorted(value for value in found if isinstance(value, str) and value[:1] in {"G", "C"})


def as_json(credit: Credit) -> dict[str, Any]:
    return {
        "operation": str(credit.operation_id),
        "change_index": credit.change_index,
        "account": credit.account,
        "muxed_id": credit.muxed_id,
        "asset": str(credit.asset),
        "stroops": credit.amount,
        "tx_hash": credit.tx_hash,
        "inner_tx_hash": credit.inner_tx_hash,
        "payer": credit.payer,
        "memo": {"type": credit.memo.type.value, "hex": credit.memo.value.hex()},
        "closed_at": credit.closed_at.isoformat(),
    }


def holds(record: Mapping[str, Any], account: str) -> list[dict[str, Any]] | str:
    parsed = parse_record(record, {account})
    if parsed is None:
        return []
    return parsed.problem or [as_json(credit) for credit in parsed.credits]


def expected(record: Mapping[str, Any]) -> dict[str, Any]:
    return {account: holds(record, account) for account in involved(record)}


def read(path: Path) -> dict[str, Any]:
    pair: dict[str, Any] = json.loads(path.read_text())
    return pair


@pytest.mark.parametrize("path", OPERATIONS, ids=lambda path: path.stem)
def test_the_record_holds_these_credits(path: Path) -> None:
    pair = read(path)
    assert expected(pair["record"]) == pair["expected"]


@pytest.mark.parametrize("path", OPERATIONS, ids=lambda path: path.stem)
def test_for_every_account_together_it_holds_what_it_holds_for_each(path: Path) -> None:
    pair = read(path)
    found = parse_record(pair["record"], None)
    credits_ = [as_json(credit) for credit in found.credits] if found else []
    each = [held for held in pair["expected"].values() if isinstance(held, list)]
    assert sorted(credits_, key=str) == sorted(
        (credit for held in each for credit in held), key=str
    )


@pytest.mark.parametrize("path", TRANSACTIONS, ids=lambda path: path.stem)
def test_the_transaction_bears_this_memo(path: Path) -> None:
    pair = read(path)
    memo = read_memo(pair["record"])
    assert {"type": memo.type.value, "hex": memo.value.hex()} == pair["expected"]
    assert memo == read_memo_xdr(pair["record"])


def test_all_real_records_are_here() -> None:
    names = [path.stem for path in OPERATIONS]
    assert sum(name.endswith("-alone") for name in names) == 63
    assert sum(name.endswith("-joined") for name in names) == 9
    assert len(TRANSACTIONS) == 20


def updated() -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in OPERATIONS:
        pair = read(path)
        yield path, pair | {"expected": expected(pair["record"])}
    for path in TRANSACTIONS:
        pair = read(path)
        memo = read_memo(pair["record"])
        yield path, pair | {"expected": {"type": memo.type.value, "hex": memo.value.hex()}}


if __name__ == "__main__":
    for target, content in updated():
        target.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")

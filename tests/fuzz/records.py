"""Any JSON object as an operation: credits, nothing, or a problem that can be kept and told."""

import json
from collections.abc import Mapping
from typing import Any, Final

from fuzz.target import Target, dumped, real_records
from paywatch.domain.ledger import MAX_STROOPS, MAX_UINT64, LedgerRecord
from paywatch.errors import HorizonUnavailable, RecordError
from paywatch.horizon.records import parse_record
from paywatch.horizon.strict_json import parse_object
from paywatch.horizon.transport import MAX_RECORD_BYTES

_PAID_TO: Final = {
    "payment": ("to", "from", "amount"),
    "path_payment": ("to", "from", "amount"),
    "path_payment_strict_receive": ("to", "from", "amount"),
    "path_payment_strict_send": ("to", "from", "amount"),
    "create_account": ("account", "funder", "starting_balance"),
}
_REAL: Final = tuple(real_records())
WATCHED: Final = frozenset(
    value
    for record in _REAL
    for name in ("to", "account", "into")
    if isinstance(value := record.get(name), str)
)


def run(raw: bytes) -> None:
    """Read one record, as a stream would."""
    try:
        record = parse_object(raw, MAX_RECORD_BYTES)
    except HorizonUnavailable:
        return
    for watched in (None, WATCHED):
        check(record, watched)


def check(record: Mapping[str, Any], watched: frozenset[str] | None) -> None:
    """Read a record and check the answer."""
    try:
        parsed = parse_record(record, watched)
    except RecordError as error:
        str(error).encode()
        return
    if parsed is None:
        assert not _pays(record, watched), "money that nobody hears of"
        return
    _check_answer(parsed, record, watched)


def _check_answer(
    parsed: LedgerRecord, record: Mapping[str, Any], watched: frozenset[str] | None
) -> None:
    assert bool(parsed.credits) != bool(parsed.problem)
    if parsed.problem is not None:
        parsed.problem.encode()  # the database and the log take no half of a surrogate pair
        kept = json.dumps(parsed.source, ensure_ascii=True)
        assert json.loads(kept) == dict(record), "not what will be looked at later"
    for credit in parsed.credits:
        assert record["transaction_successful"] is True
        assert 0 < credit.amount <= MAX_STROOPS
        assert credit.muxed_id is None or 0 <= credit.muxed_id <= MAX_UINT64
        assert credit.account != credit.payer
        assert watched is None or credit.account in watched
        assert credit.closed_at.tzinfo is not None
        str(credit.memo).encode()
    keys = [credit.key for credit in parsed.credits]
    assert len(set(keys)) == len(keys), "two credits of one identity"


def _pays(record: Mapping[str, Any], watched: frozenset[str] | None) -> bool:
    """Whether a record plainly pays a watched account, said in another way than the parser's."""
    kind = record.get("type")
    if not isinstance(kind, str) or kind not in _PAID_TO:
        return False
    if record.get("transaction_successful") is not True:
        return False
    to, payer, amount = (record.get(name) for name in _PAID_TO[kind])
    if not isinstance(to, str) or to == payer or not isinstance(amount, str):
        return False
    is_nothing = amount.strip("0.") == ""
    return (watched is None or to in watched) and not is_nothing


TARGET = Target(run, tuple(map(dumped, _REAL)), is_json=True)

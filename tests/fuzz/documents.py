"""Any document as a root, a transaction's ending or an account: read, or refused by name."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from fuzz.pages import ROOT
from fuzz.target import Target, dumped, real_records
from paywatch.domain.ledger import Position
from paywatch.errors import HorizonError, HorizonUnavailable
from paywatch.horizon.documents import Root, TxEnding, is_untouched_since
from paywatch.horizon.strict_json import parse_object
from paywatch.horizon.transport import MAX_DOCUMENT_BYTES

_HASHES: Final = tuple(record["hash"] for record in real_records("tx-*.json"))


def run(raw: bytes) -> None:
    """Read it as each of them."""
    try:
        document = parse_object(raw, MAX_DOCUMENT_BYTES)
    except HorizonUnavailable:
        return
    _root(document)
    for tx_hash in {_HASHES[0], str(document.get("hash"))}:
        with suppress(HorizonUnavailable):
            ending = TxEnding.parse(document, tx_hash)
            assert document["hash"] == tx_hash
            assert document["successful"] is ending.is_successful
            assert ending.closed_at.tzinfo is not None
    is_untouched = is_untouched_since(document, Position.after_ledger(1))
    assert not is_untouched or "last_modified_ledger" in document


def _root(document: dict[str, Any]) -> None:
    try:
        root = Root.parse(document)
    except HorizonUnavailable as error:
        str(error).encode()
        return
    assert 0 < root.elder <= root.latest
    assert Position.after_ledger(root.latest) == root.tip <= 2**63 - 1
    # Its refusals are words of ours: they go to logs and to the database.
    refusals: tuple[Callable[[], None], ...] = (
        lambda: root.require_network("Public Global Stellar Network ; September 2015"),
        lambda: root.require_continuation_of(ROOT),
        lambda: root.require_history(Position.after_ledger(5)),
    )
    for refuse in refusals:
        try:
            refuse()
        except HorizonError as error:
            str(error).encode()


_ROOT: Final = {
    "horizon_version": "23.0.0",
    "core_version": "stellar-core 23.0.1",
    "ingest_latest_ledger": 59_000_000,
    "history_latest_ledger": 59_000_000,
    "history_latest_ledger_closed_at": "2026-11-20T09:00:00Z",
    "history_elder_ledger": 2,
    "core_latest_ledger": 59_000_000,
    "network_passphrase": "Test SDF Network ; September 2015",
    "current_protocol_version": 23,
}
_ACCOUNT: Final = {
    "id": "GBDSJHAGNQDL2WZ5LBRSIVI6MUHJO6CLKF5XFVUK7GMPUQ4NBLSYVAHX",
    "last_modified_ledger": 1,
    "balances": [{"balance": "1.0", "last_modified_ledger": 1}, {"asset_type": "native"}],
}
_REAL: Final = tuple(map(dumped, (_ROOT, _ACCOUNT, *real_records("tx-*.json"))))
TARGET = Target(run, _REAL, is_json=True)

"""Horizon's root document, `/`."""

from dataclasses import dataclass
from typing import Any, Final

from paywatch.sim.headers import PROTOCOL
from paywatch.sim.history import ClosedLedger
from paywatch.sim.records import link, written

_PAGED: Final = "{?cursor,limit,order}"
_ASSETS: Final = "{?asset_code,asset_issuer,cursor,limit,order}"
_MARKET: Final = (
    "?base_asset_type={base_asset_type}&base_asset_code={base_asset_code}"
    "&base_asset_issuer={base_asset_issuer}&counter_asset_type={counter_asset_type}"
    "&counter_asset_code={counter_asset_code}&counter_asset_issuer={counter_asset_issuer}"
)
_BOOK: Final = (
    "{?selling_asset_type,selling_asset_code,selling_asset_issuer,"
    "buying_asset_type,buying_asset_code,buying_asset_issuer,limit}"
)
_STRICT_RECEIVE: Final = (
    "{?source_assets,source_account,destination_account,destination_asset_type,"
    "destination_asset_issuer,destination_asset_code,destination_amount}"
)
_STRICT_SEND: Final = (
    "{?destination_account,destination_assets,source_asset_type,source_asset_issuer,"
    "source_asset_code,source_amount}"
)
_LINKS: Final = {
    "account": "/accounts/{account_id}",
    "accounts": "/accounts{?signer,sponsor,asset,liquidity_pool,cursor,limit,order}",
    "account_transactions": f"/accounts/{{account_id}}/transactions{_PAGED}",
    "claimable_balances": "/claimable_balances{?asset,sponsor,claimant,cursor,limit,order}",
    "assets": f"/assets{_ASSETS}",
    "effects": f"/effects{_PAGED}",
    "fee_stats": "/fee_stats",
    "friendbot": "/friendbot{?addr}",
    "ledger": "/ledgers/{sequence}",
    "ledgers": f"/ledgers{_PAGED}",
    "liquidity_pools": "/liquidity_pools{?reserves,account,cursor,limit,order}",
    "offer": "/offers/{offer_id}",
    "offers": "/offers{?selling,buying,seller,sponsor,cursor,limit,order}",
    "operation": "/operations/{id}",
    "operations": "/operations{?cursor,limit,order,include_failed}",
    "order_book": f"/order_book{_BOOK}",
    "payments": "/payments{?cursor,limit,order,include_failed}",
    "self": "/",
    "strict_receive_paths": f"/paths/strict-receive{_STRICT_RECEIVE}",
    "strict_send_paths": f"/paths/strict-send{_STRICT_SEND}",
    "trade_aggregations": f"/trade_aggregations{_MARKET}",
    "trades": f"/trades{_MARKET}",
    "transaction": "/transactions/{hash}",
    "transactions": f"/transactions{_PAGED}",
}


@dataclass(frozen=True, slots=True)
class RootFacts:
    """What the root document tells of an instance, beside its links."""

    passphrase: str
    latest: ClosedLedger
    elder_ledger: int
    core_latest_ledger: int


def root_document(facts: RootFacts, base_url: str) -> dict[str, Any]:
    """The document, as Horizon 28 has it."""
    return {
        "_links": {name: link(base_url + path) for name, path in _LINKS.items()},
        "horizon_version": "28.0.0-simulated",
        "core_version": "simulated",
        "ingest_latest_ledger": facts.latest.sequence,
        "history_latest_ledger": facts.latest.sequence,
        "history_latest_ledger_closed_at": written(facts.latest.closed_at),
        "history_elder_ledger": facts.elder_ledger,
        "core_latest_ledger": facts.core_latest_ledger,
        "network_passphrase": facts.passphrase,
        "current_protocol_version": PROTOCOL,
        "supported_protocol_version": PROTOCOL,
        "core_supported_protocol_version": PROTOCOL,
    }

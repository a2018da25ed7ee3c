"""Horizon's JSON, field by field in the order of its Go structs (`protocols/horizon`).

What Go drops with `omitempty` is dropped here. Every function takes the address that the server
believes it has, for the links.
"""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from stellar_sdk import MuxedAccount

from paywatch.domain.ledger import format_stroops
from paywatch.sim.details import asset_fields, muxed_fields
from paywatch.sim.envelopes import BASE_FEE
from paywatch.sim.headers import MAX_TX_SET_SIZE, PROTOCOL
from paywatch.sim.history import AppliedOperation, AppliedTx, ClosedLedger, Effect
from paywatch.sim.state import BASE_RESERVE, Account, AccountKey, LineKey, State

JSON = dict[str, Any]
_PAGED: Final = "{?cursor,limit,order}"


def operation_record(op: AppliedOperation, base_url: str, *, join: bool = False) -> JSON:
    """An operation, with its whole transaction embedded if `join`."""
    self_path = f"/operations/{op.id}"
    joined = {"transaction": tx_record(op.tx, base_url)} if join else {}
    return {
        "_links": _links(
            base_url,
            self=self_path,
            transaction=f"/transactions/{op.tx.hash}",
            effects=f"{self_path}/effects",
            succeeds=f"/effects?order=desc&cursor={op.id}",
            precedes=f"/effects?order=asc&cursor={op.id}",
        ),
        "id": str(op.id),
        "paging_token": str(op.id),
        "transaction_successful": op.tx.successful,
        **muxed_fields("source_account", op.source),
        "type": op.type,
        "type_i": op.type_i,
        "created_at": written(op.tx.closed_at),
        "transaction_hash": op.tx.hash,
        **joined,
        **op.details,
    }


def tx_record(tx: AppliedTx, base_url: str, asked_for: str | None = None) -> JSON:
    """A transaction; under the hash that it was asked for, which may be the inner one."""
    tx_hash = asked_for or tx.hash
    self_path = f"/transactions/{tx_hash}"
    memo = {k: v for k, v in tx.memo.items() if k != "memo_type"}
    preconditions = {"preconditions": tx.preconditions} if tx.preconditions else {}
    signatures = tx.signatures if tx_hash == tx.hash else tx.inner_signatures
    return {
        **memo,
        "_links": _links(
            base_url,
            self=self_path,
            account=f"/accounts/{tx.source.account_id}",
            ledger=f"/ledgers/{tx.ledger}",
            operations=f"{self_path}/operations{_PAGED}",
            effects=f"{self_path}/effects{_PAGED}",
            precedes=f"/transactions?order=asc&cursor={tx.id}",
            succeeds=f"/transactions?order=desc&cursor={tx.id}",
            transaction=self_path,
        ),
        "id": tx_hash,
        "paging_token": str(tx.id),
        "successful": tx.successful,
        "hash": tx_hash,
        "ledger": tx.ledger,
        "created_at": written(tx.closed_at),
        "source_account": tx.source.account_id,
        **_muxed("account", tx.source),
        "source_account_sequence": str(tx.sequence),
        "fee_account": tx.fee_source.account_id,
        **_muxed("fee_account", tx.fee_source),
        "fee_charged": str(tx.fee_charged),
        "max_fee": str(tx.max_fee),
        "operation_count": tx.operation_count,
        "envelope_xdr": tx.envelope_xdr,
        "result_xdr": tx.result_xdr,
        "result_meta_xdr": tx.meta_xdr,
        "fee_meta_xdr": tx.fee_meta_xdr,
        "memo_type": tx.memo["memo_type"],
        "signatures": list(signatures),
        **preconditions,
        **_fee_bump(tx),
    }


def effect_record(effect: Effect, base_url: str) -> JSON:
    """An effect."""
    token = f"{effect.operation_id}-{effect.order}"
    return {
        "_links": _links(
            base_url,
            operation=f"/operations/{effect.operation_id}",
            succeeds=f"/effects?order=desc&cursor={token}",
            precedes=f"/effects?order=asc&cursor={token}",
        ),
        "id": f"{effect.operation_id:019d}-{effect.order:010d}",
        "paging_token": token,
        **muxed_fields("account", effect.account),
        "type": effect.type,
        "type_i": effect.type_i,
        "created_at": written(effect.closed_at),
        **effect.details,
    }


def ledger_record(ledger: ClosedLedger, base_url: str) -> JSON:
    """A ledger."""
    self_path = f"/ledgers/{ledger.sequence}"
    lists = ("transactions", "operations", "payments", "effects")
    return {
        "_links": _links(
            base_url, self=self_path, **{name: f"{self_path}/{name}{_PAGED}" for name in lists}
        ),
        "id": ledger.hash,
        "paging_token": str(ledger.sequence << 32),
        "hash": ledger.hash,
        "prev_hash": ledger.previous_hash,
        "sequence": ledger.sequence,
        "successful_transaction_count": ledger.successful,
        "failed_transaction_count": ledger.failed,
        "operation_count": ledger.operations,
        "tx_set_operation_count": ledger.tx_set_operations,
        "closed_at": written(ledger.closed_at),
        "total_coins": format_stroops(ledger.total_coins),
        "fee_pool": format_stroops(ledger.fee_pool),
        "base_fee_in_stroops": BASE_FEE,
        "base_reserve_in_stroops": BASE_RESERVE,
        "max_tx_set_size": MAX_TX_SET_SIZE,
        "protocol_version": PROTOCOL,
        "header_xdr": ledger.header_xdr,
    }


def account_record(account_id: str, state: State, base_url: str, modified_at: datetime) -> JSON:
    """An account as it stands.

    Raises:
        LookupError: there is no such account.
    """
    account = state.account(account_id)
    if account is None:
        raise LookupError(account_id)
    self_path = f"/accounts/{account_id}"
    lists = ("transactions", "operations", "payments", "effects", "offers", "trades")
    home_domain = {"home_domain": account.home_domain} if account.home_domain else {}
    return {
        "_links": _links(
            base_url,
            self=self_path,
            **{name: f"{self_path}/{name}{_PAGED}" for name in lists},
            data=f"{self_path}/data/{{key}}",
        ),
        "id": account_id,
        "account_id": account_id,
        "sequence": str(account.sequence),
        **_sequence_used(account),
        "subentry_count": account.subentries,
        **home_domain,
        "last_modified_ledger": state.modified(AccountKey(account_id)),
        "last_modified_time": written(modified_at),
        "thresholds": {"low_threshold": 0, "med_threshold": 0, "high_threshold": 0},
        "flags": dict.fromkeys(
            ("auth_required", "auth_revocable", "auth_immutable", "auth_clawback_enabled"), False
        ),
        "balances": _balances(account_id, account, state),
        "signers": [{"weight": 1, "key": account_id, "type": "ed25519_public_key"}],
        "data": {name: _base64(value) for name, value in state.data_of(account_id).items()},
        "num_sponsoring": 0,
        "num_sponsored": 0,
        "paging_token": account_id,
    }


def written(moment: datetime) -> str:
    """A time as Go writes one of whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _links(base_url: str, **paths: str) -> JSON:
    return {name: link(base_url + path) for name, path in paths.items()}


def link(href: str) -> JSON:
    """A HAL link, marked as a template if it is one."""
    return {"href": href, "templated": True} if "{" in href else {"href": href}


def _muxed(prefix: str, account: MuxedAccount) -> Mapping[str, Any]:
    fields = muxed_fields(prefix, account)
    del fields[prefix]
    return fields


def _fee_bump(tx: AppliedTx) -> JSON:
    if tx.inner_hash is None:
        return {}
    return {
        "fee_bump_transaction": {"hash": tx.hash, "signatures": list(tx.signatures)},
        "inner_transaction": {
            "hash": tx.inner_hash,
            "signatures": list(tx.inner_signatures),
            "max_fee": str(tx.inner_max_fee),
        },
    }


def _sequence_used(account: Account) -> JSON:
    if not account.sequence_ledger:
        return {}
    return {
        "sequence_ledger": account.sequence_ledger,
        "sequence_time": str(account.sequence_time),
    }


def _balances(account_id: str, account: Account, state: State) -> list[JSON]:
    none = {"buying_liabilities": format_stroops(0), "selling_liabilities": format_stroops(0)}
    lines = [
        {
            "balance": format_stroops(line.balance),
            "limit": format_stroops(line.limit),
            **none,
            "last_modified_ledger": state.modified(LineKey(account_id, asset)),
            "is_authorized": True,
            "is_authorized_to_maintain_liabilities": True,
            **asset_fields(asset),
        }
        for asset, line in state.lines_of(account_id).items()
    ]
    native = {"balance": format_stroops(account.balance), **none, "asset_type": "native"}
    return [*lines, native]

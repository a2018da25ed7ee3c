"""What people and programs are shown of a session: plain JSON documents, amounts as strings."""

from typing import Any

from stellar_sdk import Asset as SdkAsset
from stellar_sdk import HashMemo, IdMemo, Memo, MuxedAccount, TextMemo
from stellar_sdk.sep.stellar_uri import PayStellarUri

from paywatch.domain import ledger
from paywatch.domain.checkout import CheckoutSession
from paywatch.domain.events import iso
from paywatch.domain.ledger import MemoType, format_stroops
from paywatch.service.announce import Announced
from paywatch.store.checkout import SessionView


def session_document(session: CheckoutSession, passphrase: str) -> dict[str, Any]:
    """Describe a session: how to pay it, and where it stands."""
    return {
        "id": str(session.id),
        "status": session.status,
        "merchant_id": str(session.merchant_id),
        "reference": session.reference,
        "account": session.account,
        "muxed_account": MuxedAccount(session.account, session.muxed_id).account_muxed,
        "memo_type": session.memo.type,
        "memo": str(session.memo),
        "asset": str(session.asset),
        "amount": format_stroops(session.amount),
        "received": format_stroops(session.received),
        "excess": format_stroops(session.excess),
        "paid_how": session.paid_how,
        "expires_at": iso(session.expires_at),
        "least_amount": format_stroops(session.terms.least_amount),
        "accept_until": iso(session.terms.accept_until),
        "payment_uri": payment_uri(session, passphrase),
    }


def payment_uri(session: CheckoutSession, passphrase: str) -> str:
    """Build the SEP-7 request that a wallet opens to pay this session."""
    return PayStellarUri(
        destination=session.account,
        amount=format_stroops(session.amount),  # a Decimal would be written as 1E-7
        asset=sdk_asset(session.asset),
        memo=_sdk_memo(session.memo),
        network_passphrase=passphrase,
    ).to_uri()


def sdk_asset(asset: ledger.Asset) -> SdkAsset:
    """Say an asset as the SDK does."""
    return SdkAsset.native() if asset.issuer is None else SdkAsset(asset.code, asset.issuer)


def _sdk_memo(memo: ledger.Memo) -> Memo:
    if memo.type is MemoType.ID:
        return IdMemo(int(str(memo)))
    return TextMemo(memo.value) if memo.type is MemoType.TEXT else HashMemo(memo.value)


def session_view_document(view: SessionView, passphrase: str) -> dict[str, Any]:
    """Describe a session with its payments, credits and events."""
    return session_document(view.session, passphrase) | {
        "announced_tx_hash": view.announced_tx_hash,
        "payments": [
            {
                "tx_hash": row.tx_hash.hex(),
                "inner_tx_hash": row.inner_tx_hash and row.inner_tx_hash.hex(),
                "amount": format_stroops(row.amount),
                "payer": row.payer,
                "ledger": row.ledger,
                "closed_at": iso(row.closed_at),
            }
            for row in view.payments
        ],
        "credits": [
            {
                "operation_id": str(row.operation_id),
                "change_index": row.change_index,
                "outcome": row.outcome,
                "amount": format_stroops(row.amount),
                "asset": row.asset,
                "payer": row.payer,
                "tx_hash": row.tx_hash.hex(),
                "closed_at": iso(row.closed_at),
            }
            for row in view.credits
        ],
        "events": [
            {
                "id": str(row.id),
                "type": row.type,
                "occurred_at": iso(row.occurred_at),
                "delivery": row.state
                and {
                    "state": row.state,
                    "attempts": row.attempts_made,
                    "due_at": iso(row.due_at),
                    "ended_at": row.ended_at and iso(row.ended_at),
                    "dead_reason": row.dead_reason,
                },
            }
            for row in view.events
        ],
    }


def announced_document(announced: Announced) -> dict[str, Any]:
    """Describe what came of an announcement."""
    return {
        "session_id": str(announced.session_id),
        "status": announced.status,
        "tx_hash": announced.tx_hash,
        "reception": announced.reception,
        "tx_state": announced.state,
        "ledger": announced.ledger,
        "closed_at": announced.closed_at and iso(announced.closed_at),
        "settled": announced.settled,
        "ended": announced.ended,
        "problem": announced.problem,
    }

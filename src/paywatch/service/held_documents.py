"""What people and programs are shown of a held credit, and of how to pay it back."""

from collections.abc import Mapping
from typing import Any, Final

from stellar_sdk import ReturnHashMemo, StrKey
from stellar_sdk.sep.stellar_uri import PayStellarUri

from paywatch.domain.checkout import TRANSITIONS
from paywatch.domain.events import iso
from paywatch.domain.ledger import Credit, MemoType, format_stroops
from paywatch.domain.settlement import Outcome
from paywatch.errors import InvalidInput
from paywatch.service.documents import sdk_asset
from paywatch.store.held import CreditState, CreditView

HELD_BECAUSE: Final[Mapping[Outcome, str]] = {
    Outcome.UNMATCHED: "names no session",
    Outcome.DUPLICATE: "the session is paid already",
    Outcome.LATE: "closed after the session's deadline",
    Outcome.WRONG_ASSET: "the session asks for another asset",
    Outcome.CANCELED: "the session was canceled",
}


def credit_document(state: CreditState) -> dict[str, Any]:
    """Describe a credit: what came, and what became of it."""
    credit = state.credit
    return {
        "credit": credit.name,
        "outcome": state.outcome,
        "held_as": state.held_as,
        "why": _why(state),
        "account": credit.account,
        "muxed_id": None if credit.muxed_id is None else str(credit.muxed_id),
        "memo_type": credit.memo.type,
        "memo": str(credit.memo),
        "asset": str(credit.asset),
        "amount": format_stroops(credit.amount),
        "payer": credit.payer,
        "tx_hash": credit.tx_hash,
        "inner_tx_hash": credit.inner_tx_hash,
        "ledger": credit.operation_id.ledger,
        "closed_at": iso(credit.closed_at),
        "session_id": state.session_id and str(state.session_id),
        "resolved_at": state.resolved_at and iso(state.resolved_at),
        "returned_by_tx": state.returned_by_tx,
    }


def _why(state: CreditState) -> str:
    if state.is_held:
        return HELD_BECAUSE[state.outcome]
    was = f"{HELD_BECAUSE[state.held_as]}; " if state.held_as else ""
    if state.outcome is Outcome.RETURNED:
        return f"{was}paid back by {state.returned_by_tx}"
    return f"{was}applied by the merchant's word" if was else "named the session, and fits it"


def credit_view_document(view: CreditView) -> dict[str, Any]:
    """Describe a credit with its session, how the merchant was told, and what can be done."""
    session, event = view.session, view.event
    return credit_document(view.state) | {
        "session": session
        and {
            "status": session.status,
            "reference": session.reference,
            "asset": str(session.asset),
            "amount": format_stroops(session.amount),
            "received": format_stroops(session.received),
            "expires_at": iso(session.expires_at),
        },
        "event": event
        and {"id": str(event.id), "delivery": event.state, "attempts": event.attempts_made},
        "can": _can(view) if view.state.is_held else [],
    }


def _can(view: CreditView) -> list[str]:
    """The commands that may follow, with the session that was named if it can take the credit."""
    credit, session = view.state.credit, view.session
    session_id = "ID"
    if session and TRANSITIONS[session.status] and session.asset == credit.asset:
        session_id = str(session.id)
    return [
        f"paywatch credit apply {credit.name} --session {session_id}",
        f"paywatch credit refund {credit.name}",
        f"paywatch credit return {credit.name} --tx HASH",
    ]


def refund_document(credit: Credit, passphrase: str) -> dict[str, Any]:
    """Describe how to pay a credit back: a SEP-7 request, unsigned, and what to mind.

    Raises:
        InvalidInput: the payer is a contract, which SEP-7 cannot name.
    """
    if StrKey.is_valid_contract(credit.payer):
        raise InvalidInput(
            "credit",
            f"was paid by the contract {credit.payer}, which a SEP-7 request cannot name: pay it"
            " back by a call of the asset's contract, then give the hash to `paywatch credit"
            f" return {credit.name} --tx HASH`",
        )
    amount = format_stroops(credit.amount)
    return {
        "credit": credit.name,
        "destination": credit.payer,
        "asset": str(credit.asset),
        "amount": amount,
        "memo_type": MemoType.RETURN,
        "memo": credit.tx_hash,
        "pay_from": credit.account,
        "payment_uri": PayStellarUri(
            destination=credit.payer,
            amount=amount,
            asset=sdk_asset(credit.asset),
            memo=ReturnHashMemo(credit.tx_hash),
            network_passphrase=passphrase,
        ).to_uri(),
        "warning": "If the payer is an exchange, or another address that many share, this payment"
        " will not find its owner: the memo that it needs there is not known. Ask the customer"
        " for an address and its memo before you pay.",
        "then": f"paywatch credit return {credit.name} --tx HASH",
    }

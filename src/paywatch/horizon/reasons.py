"""Why a record holds no credit, in words for people: what `parse_record` answers by None."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from paywatch.horizon.records import parse_record

_PAYMENTS: Final = frozenset(
    {
        "payment",
        "path_payment",
        "path_payment_strict_receive",
        "path_payment_strict_send",
        "create_account",
        "account_merge",
        "invoke_host_function",
    }
)


def why_no_credit(record: Mapping[str, Any], watched: Collection[str] | None) -> str:
    """Say why a record that can be placed credits none of the accounts (None: no account)."""
    if record.get("transaction_successful") is False:
        return "failed transaction: nothing moved"
    kind = record.get("type")
    if kind not in _PAYMENTS:
        return f"{str(kind)[:60]}: not a payment"
    paid = parse_record(record, None)
    if paid is not None and paid.credits:
        return _others(paid.credits[0].payer, paid.credits[0].account, watched or ())
    if "from" in record and record["from"] == record.get("to"):
        return "self-payment: nets to zero"
    if kind == "invoke_host_function":
        return "contract call that moved no classic asset to an account"
    return "credits nothing"


def _others(payer: str, payee: str, watched: Collection[str]) -> str:
    if payer in watched:
        return f"outgoing: pays {payee}"
    return f"pays {payee}, which was not asked for"

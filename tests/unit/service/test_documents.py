"""What is shown of a session: read back by the SDK, it is what was meant."""

import json
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from stellar_sdk import Asset as SdkAsset
from stellar_sdk import HashMemo, IdMemo, MuxedAccount, Network, TextMemo
from stellar_sdk.sep.stellar_uri import PayStellarUri

from paywatch.domain.checkout import SessionStatus
from paywatch.domain.ledger import MAX_STROOPS, Memo, MemoType
from paywatch.service.documents import payment_uri, session_document, session_view_document
from paywatch.store.checkout import SessionView
from support import ACCOUNT, NOW, PAYER, USDC, make_session

TESTNET = Network.TESTNET_NETWORK_PASSPHRASE


def test_a_document_has_all_that_a_payer_needs_and_amounts_as_strings() -> None:
    session = make_session(7, amount=125_000_000, received=130_000_000, status=SessionStatus.PAID)
    document = session_document(session, TESTNET)
    assert json.loads(json.dumps(document)) == {
        "id": str(session.id),
        "status": "paid",
        "merchant_id": str(session.merchant_id),
        "reference": "order-7",
        "account": ACCOUNT,
        "muxed_account": MuxedAccount(ACCOUNT, 7).account_muxed,
        "memo_type": "id",
        "memo": "7",
        "asset": "native",
        "amount": "12.5000000",
        "received": "13.0000000",
        "excess": "0.5000000",
        "least_amount": "12.5000000",
        "accept_until": "2026-11-20T12:30:00Z",
        "paid_how": "over",
        "expires_at": "2026-11-20T12:30:00Z",
        "payment_uri": payment_uri(session, TESTNET),
    }


@pytest.mark.parametrize("muxed_id", [0, 1, 2**63 - 1])
def test_the_muxed_account_decodes_to_the_account_and_the_number(muxed_id: int) -> None:
    document = session_document(make_session(muxed_id=muxed_id), TESTNET)
    decoded = MuxedAccount.from_account(document["muxed_account"])
    assert (decoded.account_id, decoded.account_muxed_id) == (ACCOUNT, muxed_id)


@pytest.mark.parametrize("amount", [1, 9, 100, 12_500_000, 10**17, MAX_STROOPS])
def test_a_wallet_reads_the_amount_to_the_last_stroop(amount: int) -> None:
    """A Decimal of one stroop is written as 1E-7, which is no amount."""
    uri = PayStellarUri.from_uri(payment_uri(make_session(amount=amount), TESTNET))
    assert isinstance(uri.amount, str)
    units, _, places = uri.amount.partition(".")
    assert (int(units) * 10**7 + int(places), len(places)) == (amount, 7)


@pytest.mark.parametrize(
    ("memo", "expected"),
    [
        (Memo.of_id(0), IdMemo(0)),
        (Memo.of_id(2**64 - 1), IdMemo(2**64 - 1)),
        (Memo(MemoType.TEXT, "Ørder 7 & more?".encode()), TextMemo("Ørder 7 & more?")),
        (Memo(MemoType.HASH, bytes(range(32))), HashMemo(bytes(range(32)))),
    ],
)
def test_a_wallet_reads_the_memo_as_it_was_meant(memo: Memo, expected: object) -> None:
    uri = PayStellarUri.from_uri(payment_uri(make_session(memo=memo), TESTNET))
    assert PayStellarUri._decode_memo(uri.memo_type, str(uri.memo)) == expected
    assert session_document(make_session(memo=memo), TESTNET)["memo"] == str(memo)


def test_a_wallet_reads_where_what_and_on_which_network() -> None:
    uri = PayStellarUri.from_uri(payment_uri(make_session(asset=USDC), TESTNET))
    assert (uri.destination, uri.network_passphrase) == (ACCOUNT, TESTNET)
    assert SdkAsset(uri.asset_code or "", uri.asset_issuer) == SdkAsset(USDC.code, USDC.issuer)
    native = PayStellarUri.from_uri(payment_uri(make_session(), TESTNET))
    assert (native.asset_code, native.asset_issuer) == (None, None)


@dataclass
class RowOf:
    """A row of one of the statements that read a session."""

    values: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        return self.values[name]


def row(**values: Any) -> Any:
    return RowOf(values)


def test_a_view_shows_payments_credits_and_events_as_plain_json() -> None:
    tx_hash = bytes(range(32))
    event_id = UUID(int=5)
    payment = {
        "tx_hash": tx_hash,
        "inner_tx_hash": None,
        "amount": 100,
        "payer": PAYER,
        "ledger": 1001,
        "closed_at": NOW,
    }
    credit = {
        "operation_id": 2**62,
        "change_index": 0,
        "outcome": "applied",
        "amount": 100,
        "asset": "native",
        "payer": PAYER,
        "tx_hash": tx_hash,
        "closed_at": NOW,
    }
    event = {"id": event_id, "type": "checkout.session.paid", "occurred_at": NOW}
    delivered = {
        "state": "delivered",
        "attempts_made": 2,
        "due_at": NOW,
        "ended_at": NOW + timedelta(seconds=1),
        "dead_reason": None,
    }
    view = SessionView(
        make_session(),
        announced_tx_hash=tx_hash.hex(),
        credits=[row(**credit)],
        payments=[row(**payment), row(**(payment | {"inner_tx_hash": tx_hash}))],
        events=[row(**event, **delivered), row(**event, state=None)],
    )
    document = json.loads(json.dumps(session_view_document(view, TESTNET)))
    assert document["id"] == str(view.session.id)
    assert document["announced_tx_hash"] == tx_hash.hex()
    assert [p["inner_tx_hash"] for p in document["payments"]] == [None, tx_hash.hex()]
    assert document["payments"][0]["tx_hash"] == tx_hash.hex()
    assert document["payments"][0]["amount"] == "0.0000100"
    assert document["credits"][0]["operation_id"] == str(2**62), "no float can hold it"
    assert [e["delivery"] for e in document["events"]] == [
        {
            "state": "delivered",
            "attempts": 2,
            "due_at": "2026-11-20T12:00:00Z",
            "ended_at": "2026-11-20T12:00:01Z",
            "dead_reason": None,
        },
        None,
    ]

"""What is shown of a held credit: what can be done, and a refund that wallets read as meant."""

import json
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from stellar_sdk import Asset as SdkAsset
from stellar_sdk import Network, ReturnHashMemo, StrKey
from stellar_sdk.sep.stellar_uri import PayStellarUri

from paywatch.domain.checkout import CheckoutSession, SessionStatus
from paywatch.domain.ledger import MAX_UINT64
from paywatch.domain.settlement import Outcome
from paywatch.errors import InvalidInput
from paywatch.service.held_documents import (
    credit_document,
    credit_view_document,
    refund_document,
)
from paywatch.store.held import CreditState, CreditView
from support import ACCOUNT, NOW, PAYER, USDC, make_credit, make_session

TESTNET = Network.TESTNET_NETWORK_PASSPHRASE
CREDIT = make_credit(100)


def held(outcome: Outcome = Outcome.UNMATCHED, **changes: Any) -> CreditState:
    state = CreditState(CREDIT, outcome, None, None, None, None)
    return replace(state, **changes)


def view(outcome: Outcome, session: CheckoutSession | None) -> CreditView:
    return CreditView(held(outcome, session_id=session and session.id), session, None)


def test_a_document_is_json_with_all_that_came() -> None:
    credit = replace(CREDIT, muxed_id=MAX_UINT64)
    document = credit_document(held(credit=credit))
    assert json.loads(json.dumps(document)) == {
        "credit": "4299262267393:0",
        "outcome": "unmatched",
        "held_as": None,
        "why": "names no session",
        "account": ACCOUNT,
        "muxed_id": "18446744073709551615",
        "memo_type": "id",
        "memo": "1",
        "asset": "native",
        "amount": "0.0000100",
        "payer": PAYER,
        "tx_hash": CREDIT.tx_hash,
        "inner_tx_hash": None,
        "ledger": 1001,
        "closed_at": "2026-11-20T12:00:05Z",
        "session_id": None,
        "resolved_at": None,
        "returned_by_tx": None,
    }


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (held(Outcome.LATE), "closed after the session's deadline"),
        (
            held(Outcome.APPLIED, held_as=Outcome.LATE, resolved_at=NOW),
            "closed after the session's deadline; applied by the merchant's word",
        ),
        (
            held(Outcome.RETURNED, held_as=Outcome.DUPLICATE, returned_by_tx="ab" * 32),
            f"the session is paid already; paid back by {'ab' * 32}",
        ),
        (held(Outcome.APPLIED), "named the session, and fits it"),
    ],
)
def test_it_says_why_it_is_held_and_what_became_of_it(state: CreditState, why: str) -> None:
    assert credit_document(state)["why"] == why


def test_every_reason_has_its_words() -> None:
    for outcome in set(Outcome) - {Outcome.APPLIED, Outcome.RETURNED}:
        assert credit_document(held(outcome))["why"]


@pytest.mark.parametrize(
    ("outcome", "session", "named"),
    [
        (Outcome.LATE, make_session(status=SessionStatus.EXPIRED), str(make_session().id)),
        (Outcome.DUPLICATE, make_session(status=SessionStatus.PAID), "ID"),
        (Outcome.CANCELED, make_session(status=SessionStatus.CANCELED), "ID"),
        (Outcome.WRONG_ASSET, make_session(asset=USDC), "ID"),
        (Outcome.UNMATCHED, None, "ID"),
    ],
)
def test_the_commands_name_the_session_only_if_it_can_take_the_credit(
    outcome: Outcome, session: CheckoutSession | None, named: str
) -> None:
    assert credit_view_document(view(outcome, session))["can"] == [
        f"paywatch credit apply 4299262267393:0 --session {named}",
        "paywatch credit refund 4299262267393:0",
        "paywatch credit return 4299262267393:0 --tx HASH",
    ]


def test_nothing_can_be_done_with_what_is_resolved() -> None:
    resolved = held(Outcome.APPLIED, held_as=Outcome.LATE, session_id=uuid4())
    assert credit_view_document(CreditView(resolved, make_session(), None))["can"] == []


@pytest.mark.parametrize("amount", [1, 12_500_000, 2**63 - 1])
def test_a_wallet_reads_the_refund_to_the_last_stroop_unsigned(amount: int) -> None:
    credit = make_credit(amount, asset=USDC)
    document = refund_document(credit, TESTNET)
    uri = PayStellarUri.from_uri(document["payment_uri"])
    assert uri.destination == document["destination"] == PAYER
    assert isinstance(uri.amount, str)
    assert uri.amount == document["amount"]
    assert int(uri.amount.replace(".", "")) == amount
    assert USDC.issuer is not None
    assert uri.asset_code == "USDC"
    assert SdkAsset(uri.asset_code, uri.asset_issuer) == SdkAsset("USDC", USDC.issuer)
    assert (uri.memo_type, uri._memo) == ("MEMO_RETURN", ReturnHashMemo(credit.tx_hash))
    assert (uri.network_passphrase, uri.signature) == (TESTNET, None)
    assert "exchange" in document["warning"]


def test_a_refund_of_lumens_names_no_asset() -> None:
    uri = PayStellarUri.from_uri(refund_document(CREDIT, TESTNET)["payment_uri"])
    assert (uri.asset_code, uri.asset_issuer) == (None, None)


def test_a_contract_cannot_be_named_by_sep_7() -> None:
    contract = StrKey.encode_contract(bytes(32))
    with pytest.raises(InvalidInput, match="SEP-7 request cannot name: pay it back by a call"):
        refund_document(make_credit(payer=contract), TESTNET)

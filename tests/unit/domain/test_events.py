"""What a merchant is told: byte for byte the same, whoever builds it and how often."""

import json
from dataclasses import replace
from uuid import UUID

from paywatch.domain.checkout import SessionStatus
from paywatch.domain.events import EventType, event_id, session_expired, session_paid
from paywatch.domain.ledger import Memo, MemoType
from paywatch.domain.settlement import decide
from support import make_credit, make_session

# Golden: if this line has to change, every merchant's parser has to change with it.
PAID = (
    '{"type":"checkout.session.paid","timestamp":"2026-11-20T12:00:05Z","data":{"session_i'
    'd":"3e14eb35-338c-502e-a56e-91b09494d32f","status":"paid","reference":"order-1","acco'
    'unt":"GC4WV3DHMBEYEYGJBUUIIISBK2CRHTK5NFGW2ACXOONN33Y7MNIGLYOM","memo_type":"id","mem'
    'o":"1","muxed_id":"1","asset":"native","amount":"0.0000100","received":"0.0000120","e'
    'xcess":"0.0000020","paid_how":"over","expires_at":"2026-11-20T12:30:00Z","payment":{"'
    'tx_hash":"d9e15d0734b559249511be300878578833e61c5e3e4cfdc4fd41817ab35a4f62","operatio'
    'n_id":"4299262267393","ledger":1001,"payer":"GDCCANNXZVTJQUVVDJEZBTHAS2QPYQ2SGC3574IQ'
    '2TNI6OV22Y57PXML","amount":"0.0000120","closed_at":"2026-11-20T12:00:05Z"}}}'
)


def test_the_paid_event_is_golden() -> None:
    settlement = decide(make_session(), [make_credit(120)])
    assert settlement.completed_by is not None
    event = session_paid(settlement.session, settlement.completed_by)
    assert event.payload.decode() == PAID
    assert session_paid(settlement.session, settlement.completed_by) == event


def test_an_id_follows_from_type_and_session_alone() -> None:
    """Changing this would tell every merchant everything again."""
    session = UUID("00000000-0000-0000-0000-000000000001")
    assert event_id(EventType.SESSION_PAID, session) == UUID("3e72da3b-33d3-52c8-9137-0ea54c7ebeca")
    assert event_id(EventType.SESSION_EXPIRED, session) != event_id(EventType.SESSION_PAID, session)


def test_the_expired_event_says_whether_there_is_money_on_it() -> None:
    session = make_session(status=SessionStatus.EXPIRED, received=40)
    event = session_expired(session)
    document = json.loads(event.payload)
    assert (document["type"], document["data"]["received"]) == (
        "checkout.session.expired",
        "0.0000040",
    )
    assert event.occurred_at == session.expires_at


def test_a_hostile_memo_cannot_break_the_payload() -> None:
    session = replace(make_session(), memo=Memo(MemoType.TEXT, b'\xff\x00"}'))
    document = json.loads(session_expired(session).payload)
    assert document["data"]["memo"] == '\\xff\x00"}'


def test_a_payload_stays_under_the_20_kb_of_standard_webhooks() -> None:
    session = make_session(reference="\N{PILE OF POO}" * 200)
    assert len(session_paid(session, make_credit()).payload) < 20_000

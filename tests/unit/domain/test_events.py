"""What a merchant is told: byte for byte the same, whoever builds it and how often."""

import json
from dataclasses import replace
from uuid import UUID

from paywatch.domain.checkout import SessionStatus
from paywatch.domain.events import (
    EventType,
    credit_subject,
    event_id,
    payment_unapplied,
    session_expired,
    session_paid,
)
from paywatch.domain.ledger import MAX_UINT64, Memo, MemoType
from paywatch.domain.settlement import HeldCredit, Outcome, decide
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

UNAPPLIED = (
    '{"type":"payment.unapplied","timestamp":"2026-11-20T12:00:05Z","data":{"credit":"429'
    '9262267393:0","reason":"duplicate","session_id":"3e14eb35-338c-502e-a56e-91b09494d32'
    'f","reference":"order-1","account":"GC4WV3DHMBEYEYGJBUUIIISBK2CRHTK5NFGW2ACXOONN33Y7'
    'MNIGLYOM","muxed_id":"18446744073709551615","memo_type":"text","memo":"order 1","ass'
    'et":"native","amount":"0.0000120","payer":"GDCCANNXZVTJQUVVDJEZBTHAS2QPYQ2SGC3574IQ2'
    'TNI6OV22Y57PXML","tx_hash":"d9e15d0734b559249511be300878578833e61c5e3e4cfdc4fd41817a'
    'b35a4f62","ledger":1001,"closed_at":"2026-11-20T12:00:05Z"}}'
)
HELD = HeldCredit(
    make_credit(120, memo=Memo(MemoType.TEXT, b"order 1"), muxed_id=MAX_UINT64),
    0,
    Outcome.DUPLICATE,
    make_session().id,
    "order-1",
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


def test_the_unapplied_event_is_golden() -> None:
    event = payment_unapplied(HELD)
    assert event.payload.decode() == UNAPPLIED
    assert payment_unapplied(HELD) == event
    assert (event.account, event.occurred_at) == (HELD.credit.account, HELD.credit.closed_at)


def test_text_is_escaped_as_little_as_json_allows() -> None:
    """What Python's own encoder writes without `ensure_ascii`: the bytes are what is signed."""
    reference = "".join(map(chr, [*range(1, 0xD800), 0xE000, 0xFFFF, 0x1F600]))
    payload = session_expired(make_session(reference=reference)).payload
    document = json.loads(payload)
    plain = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    assert document["data"]["reference"] == reference
    assert payload == plain.encode()


def test_what_names_no_session_is_told_without_one() -> None:
    event = payment_unapplied(HeldCredit(make_credit(), 0, Outcome.UNMATCHED))
    told = json.loads(event.payload)["data"]
    assert (told["session_id"], told["reference"], told["muxed_id"]) == (None, None, None)


def test_a_credit_is_told_by_its_own_identity_the_history_of_the_network_with_it() -> None:
    """After a reset of testnet the same position is other money. Golden: see above."""
    assert credit_subject(HELD) == UUID("ed97a816-32b2-5675-96a3-176759deb1e7")
    others = [
        replace(HELD, history=1),
        replace(HELD, credit=make_credit(op=2)),
        replace(HELD, credit=make_credit(change_index=1)),
    ]
    assert len({payment_unapplied(held).id for held in (HELD, *others)}) == 4
    named_otherwise = replace(HELD, reason=Outcome.LATE, session_id=None)
    assert credit_subject(named_otherwise) == credit_subject(HELD)


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
    credit = make_credit(memo=Memo(MemoType.TEXT, b"\x01" * 28), amount=2**63 - 1)
    held = HeldCredit(credit, 32_767, Outcome.WRONG_ASSET, session.id, "\x01" * 200)
    assert len(payment_unapplied(held).payload) < 20_000

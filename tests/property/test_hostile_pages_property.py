"""A page of real payments to us, changed by strangers: each is a credit or in quarantine.

Settled into a real database: what the parser lets through, the columns and the constraints see.
"""

import hashlib
import json
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.mutation import mutate_json
from fuzz.pages import ROOT
from fuzz.target import dumped, real_records
from paywatch.domain.ledger import Memo, MemoType, Position
from paywatch.horizon.pages import Page
from paywatch.service.settle import Order
from support import ACCOUNT, Shop

RECORDS = 40  # on a page
REAL = [
    record
    for pattern in ("[0-9]*-made.json", "[0-9]*-joined.json")
    for record in real_records(pattern)
]
TABLES = "quarantine, credits, payments, events, deliveries, session_transitions, checkout_sessions"


def changed(number: int, rng: Random) -> dict[str, Any]:
    """A real record, for us and at a place of its own, with up to three changes elsewhere."""
    real = rng.choice(REAL)
    payee = real.get("to") or real.get("into") or real.get("account") or ACCOUNT
    text = dumped(real).decode().replace(payee, ACCOUNT)
    own = hashlib.sha256(b"%d" % number).hexdigest()
    raw = text.replace(str(real.get("transaction_hash")), own).encode()
    for _ in range(rng.randint(0, 3)):
        raw = mutate_json(raw, rng)
    place = str(Position.of(1001 + number, 1, 1))
    return {**json.loads(raw), "id": place, "paging_token": place}


@given(rng=st.randoms(use_true_random=True))
@settings(
    max_examples=25,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_every_payment_of_a_hostile_page_is_a_credit_or_in_quarantine(
    shop: Shop, rng: Random
) -> None:
    await shop.execute(f"TRUNCATE {TABLES} CASCADE")
    await shop.add_session(1, memo=Memo(MemoType.TEXT, b"order 17"), amount=1)
    claim = await shop.claim()
    begin = claim.position.ledger
    records = [changed(begin - 1000 + number, rng) for number in range(RECORDS)]
    batch = Page.of(records, claim.position, ROOT).batch({ACCOUNT})
    await shop.settler.settle(Order(batch, claim.stream, claim))
    held = "SELECT operation_id FROM {} ORDER BY operation_id"
    credited = {row[0] for row in await shop.rows(held.format("credits"))}
    kept = {row[0] for row in await shop.rows(held.format("quarantine"))}
    assert not credited & kept
    assert credited | kept == {record.operation_id for record in batch.records}
    assert kept >= {record.operation_id for record in batch.records if record.problem}
    assert (await shop.claim()).position == batch.upto
    reasons = await shop.rows("SELECT reason FROM quarantine")
    assert all(reason for (reason,) in reasons)

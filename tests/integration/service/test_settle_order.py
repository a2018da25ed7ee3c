"""Credits that are read in another order than the ledger's: who completed a session, and when."""

import json

from paywatch.domain.checkout import Terms
from support import Shop, closing, make_credit

DEADLINE, GRACE = 1100, 1200
HOW = "SELECT status, paid_how, paid_at, received FROM checkout_sessions"
TOLD = "SELECT payload FROM events WHERE type = 'checkout.session.paid'"


async def open_session(shop: Shop) -> None:
    terms = Terms(100, closing(GRACE), text_for_id=True)
    await shop.add_session(expires_at=closing(DEADLINE), terms=terms)


async def told_of(shop: Shop) -> str:
    [(payload,)] = await shop.rows(TOLD)
    return str(json.loads(payload)["data"]["payment"]["operation_id"])


async def test_money_whole_only_after_the_deadline_is_late_though_its_first_part_was_read_last(
    shop: Shop,
) -> None:
    await open_session(shop)
    skipped, late = make_credit(60, ledger=1050), make_credit(40, ledger=1150)
    await shop.settle(late)
    await shop.settle(skipped)
    assert await shop.rows(HOW) == [("paid", "late", closing(1150), 100)]
    assert await told_of(shop) == str(late.operation_id)


async def test_money_whole_before_the_deadline_is_in_time_though_more_came_later_and_was_read_first(
    shop: Shop,
) -> None:
    await open_session(shop)
    early, late = make_credit(50, ledger=1010), make_credit(45, ledger=1150)
    skipped = make_credit(60, ledger=1050)
    await shop.settle(early)
    await shop.settle(late)
    await shop.settle(skipped)
    assert await shop.rows(HOW) == [("paid", "over", closing(1050), 155)]
    assert await told_of(shop) == str(skipped.operation_id)


async def test_of_several_parts_read_before_the_one_that_reached_the_amount_completed_it(
    shop: Shop,
) -> None:
    await open_session(shop)
    skipped = make_credit(60, ledger=1050)
    behind = [make_credit(amount, ledger=1060 + amount) for amount in (10, 30, 45)]
    await shop.settle(*behind)
    await shop.settle(skipped)
    assert await shop.rows(HOW) == [("paid", "over", closing(1090), 145)]
    assert await told_of(shop) == str(behind[1].operation_id)

"""Whoever reads the ledger, in whatever order and how often: the rows are the same.

A drawn ledger pays sessions on two accounts. A drawn schedule has it read by two live streams
(pages, and early batches beyond their position), by backfills with cursors of their own, and by
recovery and audits without any; each cuts where it likes, also in the middle of a transaction,
reads again, loses its claim and takes it again, and two may work at the same moment. Overdue
sessions expire whenever the live cursor allows it. The result is held against one undisturbed
reading of the same ledger: each account's operations in one batch, and then one look for what is
overdue.

**In order.** As long as no reader is the first to bring a credit while an earlier one of the same
account is unread, nothing may differ: credits, payments, sessions, ids and payloads of the events,
deliveries, transitions. Lawful is one difference: a session with a grace expires, and says so,
before a credit within the grace is read, or after it, or not at all. So its expiry is not compared.

**In any order.** A stream can skip an operation that a page or a backfill brings later (Horizon
ingested it late). What was told stays told: the credits that came first have paid the session, and
the earlier one comes too late for it. Then must be equal

- every credit as evidence, and the session that it names; `unmatched` and `wrong_asset`;
- which sessions are paid, one event for each by the same id;
- all about the sessions that are not paid: their status, `received`, applied and held credits.

Lawful is that, of a paid session that credits were more than enough for, other ones are applied,
and the rest are held as `duplicate` or `late`: hence other payments, `received` and moment. But
none more than it took: without the one that was read last, the applied ones do not pay it. And who
completed it, and when, is told by the ledger's order of those that are applied.
"""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paywatch.domain.ledger import Credit, Memo, MemoType
from paywatch.store import merchants
from paywatch.store.merchants import WatchedAccount
from support import ACCOUNT, NOW, START, USDC, XLM, Shop, address, make_credit
from support.readings import LAST, OTHER_ACCOUNT, SESSIONS, Opened, Step, read_all

SAME_IN_ORDER = {
    "sessions": "SELECT muxed_id, status, received, paid_how, paid_at FROM checkout_sessions"
    " ORDER BY 1",
    "credits": "SELECT operation_id, change_index, account, muxed_id, asset, amount, tx_hash,"
    " inner_tx_hash, payer, memo_type, memo, closed_at, outcome, session_id FROM credits"
    " ORDER BY 1, 2",
    "payments": "SELECT tx_hash, inner_tx_hash, ledger, closed_at, payer, memo_type, memo"
    " FROM payments ORDER BY 1",
    "events": "SELECT e.id, e.type, e.payload, d.endpoint_id, d.state FROM events e"
    " LEFT JOIN deliveries d ON d.event_id = e.id LEFT JOIN checkout_sessions s ON s.id = e.subject"
    " WHERE e.type <> 'checkout.session.expired' OR s.accept_until = s.expires_at ORDER BY 1, 4",
    "transitions": "SELECT t.session_id, t.before, t.after, t.cause, t.operation_id, t.change_index"
    " FROM session_transitions t JOIN checkout_sessions s ON s.id = t.session_id"
    " WHERE s.accept_until = s.expires_at ORDER BY t.session_id, t.id",
    "cursors": "SELECT stream, position, read_through_at FROM cursors ORDER BY 1",
    "quarantine": "SELECT * FROM quarantine",
}
SAME_IN_ANY_ORDER = {
    "evidence": "SELECT operation_id, change_index, account, muxed_id, asset, amount, tx_hash,"
    " inner_tx_hash, payer, memo_type, memo, closed_at, session_id,"
    " CASE WHEN outcome IN ('unmatched', 'wrong_asset') THEN outcome END FROM credits"
    " ORDER BY 1, 2",
    "paid": "SELECT id FROM checkout_sessions WHERE status = 'paid' ORDER BY 1",
    "told": "SELECT id FROM events WHERE type = 'checkout.session.paid' ORDER BY 1",
    "not paid": "SELECT id, status, received FROM checkout_sessions WHERE status <> 'paid'"
    " ORDER BY 1",
    "their credits": "SELECT c.operation_id, c.change_index, c.outcome, p.tx_hash FROM credits c"
    " JOIN checkout_sessions s ON s.id = c.session_id"
    " LEFT JOIN payments p ON p.tx_hash = c.payment_tx_hash WHERE s.status <> 'paid' ORDER BY 1, 2",
    "cursors": SAME_IN_ORDER["cursors"],
    "quarantine": SAME_IN_ORDER["quarantine"],
}

# What was applied last by order of reading was needed: without it the others do not pay.
TOOK_MORE_THAN_NEEDED = """
SELECT s.muxed_id, s.received, c.amount FROM checkout_sessions s
  JOIN session_transitions t ON t.session_id = s.id AND t.after = 'paid'
  JOIN credits c USING (operation_id, change_index)
 WHERE s.received - c.amount >= s.least_amount"""
# Paid at the moment when the applied credits, in the ledger's order, came to enough.
PAID_AT_ANOTHER_MOMENT = """
WITH sums AS (
    SELECT s.id, s.paid_at, s.least_amount, c.closed_at,
           sum(c.amount) OVER (PARTITION BY s.id ORDER BY c.operation_id, c.change_index) AS sum
      FROM checkout_sessions s JOIN credits c ON c.session_id = s.id AND c.outcome = 'applied'
     WHERE s.status = 'paid'
)
SELECT id, paid_at, min(closed_at) FILTER (WHERE sum >= least_amount) FROM sums
 GROUP BY id, paid_at HAVING paid_at <> min(closed_at) FILTER (WHERE sum >= least_amount)"""
TOLD_OF_ANOTHER = """
SELECT s.id, e.payload FROM events e JOIN checkout_sessions s ON s.id = e.subject,
       LATERAL (SELECT convert_from(e.payload, 'UTF8')::json -> 'data' AS told) d
 WHERE e.type = 'checkout.session.paid'
   AND (s.paid_how <> told ->> 'paid_how'
        OR s.received <> (told ->> 'received')::numeric * 10000000
        OR s.paid_at <> (told -> 'payment' ->> 'closed_at')::timestamptz)"""

opened = st.builds(
    Opened, st.sampled_from([1002, 1004, 1020]), st.sampled_from([0, 0, 2]),
    st.sampled_from([100, 100, 95]),
)  # fmt: skip
steps = st.builds(
    Step,
    st.sampled_from(["page", "page", "early", "backfill", "audit", "restart"]),
    st.sampled_from([ACCOUNT, ACCOUNT, OTHER_ACCOUNT]),
    st.integers(0, 8),
    st.integers(1, 4),
    st.frozensets(st.integers(0, 3), max_size=3),
    st.booleans(),
    st.booleans(),
)


@st.composite
def credits_(draw: st.DrawFn) -> list[Credit]:
    """Credits of a few ledgers: several to a transaction, or to an operation, to two accounts."""
    places = draw(
        st.sets(
            st.tuples(
                st.integers(1001, LAST), st.integers(1, 2), st.integers(1, 3), st.integers(0, 1)
            ),
            max_size=14,
        )
    )
    digits = [Memo(MemoType.TEXT, b"%d" % n) for n in SESSIONS]
    ids = [Memo.of_id(n) for n in SESSIONS]
    memos = st.sampled_from([*ids, *ids, *digits, Memo.of_id(9), Memo.none()])
    txs = {place: (draw(memos), draw(st.sampled_from(["payer", "stranger"])))
           for place in sorted({(ledger, tx) for ledger, tx, _, _ in places})}  # fmt: skip
    return [
        make_credit(
            draw(st.sampled_from([1, 40, 60, 95, 100, 250])),
            ledger=ledger, tx=tx, op=op, change_index=change,
            account=draw(st.sampled_from([ACCOUNT, ACCOUNT, OTHER_ACCOUNT])),
            asset=draw(st.sampled_from([XLM, XLM, XLM, USDC])),
            memo=txs[ledger, tx][0],
            payer=address(txs[ledger, tx][1]),
            muxed_id=draw(st.sampled_from([None, None, None, *SESSIONS, 9])),
        )
        for ledger, tx, op, change in sorted(places)
    ]  # fmt: skip


Ledger = Sequence[Credit]
Sessions = Sequence[Opened]
Schedule = Sequence[Step]
terms = st.tuples(*[opened] * len(SESSIONS))
schedules = st.lists(steps, max_size=12)


@pytest.fixture
async def two_accounts(shop: Shop) -> Shop:
    """The shop, watching a second account."""
    async with shop.engine.begin() as conn:
        second = WatchedAccount(OTHER_ACCOUNT, shop.merchant_id, START)
        await merchants.insert_account(conn, second, NOW)
    return shop


async def state(shop: Shop, queries: dict[str, str]) -> dict[str, list[tuple[Any, ...]]]:
    return {name: await shop.rows(sql) for name, sql in queries.items()}


drawn = settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@drawn
@given(ledger=credits_(), sessions=terms, schedule=schedules)
async def test_readers_in_ledger_order_leave_the_rows_of_one_undisturbed_reading(
    two_accounts: Shop, ledger: Ledger, sessions: Sessions, schedule: Schedule
) -> None:
    await read_all(two_accounts, ledger, sessions, ())
    undisturbed = await state(two_accounts, SAME_IN_ORDER)
    await read_all(two_accounts, ledger, sessions, schedule)
    assert await state(two_accounts, SAME_IN_ORDER) == undisturbed


@drawn
@given(ledger=credits_(), sessions=terms, schedule=schedules)
async def test_readers_in_any_order_pay_the_same_sessions_and_lose_nothing(
    two_accounts: Shop, ledger: Ledger, sessions: Sessions, schedule: Schedule
) -> None:
    await read_all(two_accounts, ledger, sessions, ())
    undisturbed = await state(two_accounts, SAME_IN_ANY_ORDER)
    await read_all(two_accounts, ledger, sessions, schedule, in_order=False)
    assert await state(two_accounts, SAME_IN_ANY_ORDER) == undisturbed
    for wrong in (TOOK_MORE_THAN_NEEDED, PAID_AT_ANOTHER_MOMENT, TOLD_OF_ANOTHER):
        assert await two_accounts.rows(wrong) == []

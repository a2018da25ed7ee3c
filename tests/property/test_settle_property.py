"""However the ledger is cut into batches, repeated and begun again, the rows are the same."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paywatch.domain.ledger import Credit, Memo
from paywatch.service.settle import Order
from paywatch.store.invariants import find_violations
from support import NOW, USDC, XLM, Shop, closing, make_batch, make_credit

SESSIONS = 3
DEADLINE = 1006  # the ledger at which the sessions end

STATE = {
    "sessions": "SELECT muxed_id, status, received, paid_how, paid_at FROM checkout_sessions"
    " ORDER BY muxed_id",
    "credits": "SELECT operation_id, outcome, session_id FROM credits ORDER BY operation_id",
    "payments": "SELECT tx_hash, ledger, closed_at, payer FROM payments ORDER BY tx_hash",
    "events": "SELECT id, payload FROM events ORDER BY id",
    "deliveries": "SELECT event_id, state FROM deliveries ORDER BY event_id",
    "transitions": "SELECT session_id, before, after, cause, operation_id FROM session_transitions"
    " ORDER BY session_id, operation_id",
}


@st.composite
def histories(draw: st.DrawFn) -> list[Credit]:
    """Operations of a few ledgers, some in one transaction, for our sessions and for nobody."""
    places = draw(
        st.lists(
            st.tuples(st.integers(1001, 1009), st.integers(1, 2), st.integers(1, 3)),
            unique=True,
            max_size=12,
        )
    )
    txs = sorted({(ledger, tx) for ledger, tx, _ in places})  # all operations share the memo
    memos = {tx: draw(st.sampled_from([Memo.of_id(n) for n in range(SESSIONS + 1)])) for tx in txs}
    return [
        make_credit(
            draw(st.sampled_from([1, 40, 60, 100, 250])),
            ledger=ledger,
            tx=tx,
            op=op,
            asset=draw(st.sampled_from([XLM, XLM, XLM, USDC])),
            memo=memos[ledger, tx],
            muxed_id=draw(st.sampled_from([None, None, *range(SESSIONS + 1)])),
        )
        for ledger, tx, op in sorted(places)
    ]


@st.composite
def readings(draw: st.DrawFn) -> tuple[list[Credit], list[list[Credit]]]:
    """A history, and the batches that a reader with a bad day makes of it."""
    history = draw(histories())
    cuts = sorted(draw(st.sets(st.integers(0, len(history)), max_size=5)))
    edges = [0, *cuts, len(history)]
    batches = [history[low:high] for low, high in pairwise(edges)]
    repeated = []
    for batch in batches:
        repeated += [batch] * draw(st.integers(1, 2))
        seen_already = draw(st.integers(0, len(history)))
        if seen_already and history[seen_already - 1].key <= max(
            (credit.key for done in repeated for credit in done), default=(0, 0)
        ):
            repeated.append(history[:seen_already])  # a replay from the beginning
    return history, repeated


async def settle_all(shop: Shop, batches: Sequence[Sequence[Credit]]) -> dict[str, object]:
    """Settle batches on an emptied shop; gives what the tables hold afterwards."""
    await shop.execute(
        "TRUNCATE credits, payments, events, deliveries, attempts, session_transitions,"
        " checkout_sessions RESTART IDENTITY CASCADE"
    )
    for number in range(1, SESSIONS + 1):
        await shop.add_session(number, expires_at=closing(DEADLINE))
    for batch in batches:
        if batch:
            await shop.settler.settle(Order(make_batch(batch), by="test"))
    async with shop.engine.begin() as conn:
        assert await find_violations(conn, NOW) == []
    return {name: await shop.rows(sql) for name, sql in STATE.items()}


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(reading=readings())
async def test_any_chunking_and_repetition_gives_the_rows_of_one_undisturbed_batch(
    shop: Shop, reading: tuple[list[Credit], list[list[Credit]]]
) -> None:
    history, batches = reading
    assert await settle_all(shop, batches) == await settle_all(shop, [history])


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(history=histories())
async def test_money_is_neither_lost_nor_made(shop: Shop, history: list[Credit]) -> None:
    await settle_all(shop, [history, [replace(credit) for credit in history]])
    [(rows, total)] = await shop.rows("SELECT count(*), coalesce(sum(amount), 0) FROM credits")
    assert (rows, total) == (len(history), sum(credit.amount for credit in history))

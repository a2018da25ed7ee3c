"""Checkout on a real database: merchants and sessions made, refused and read."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from paywatch.domain.checkout import SessionStatus
from paywatch.domain.ledger import Memo, MemoType, Position
from paywatch.errors import HorizonUnavailable, InvalidInput, NotFound, WebhookRefused
from paywatch.service.checkout import Checkout, NewMerchant, SessionRequest
from paywatch.service.settle import Order
from paywatch.store.cursors import live_stream
from paywatch.webhooks.guard import Policy, check_url
from paywatch.webhooks.sealing import Vault
from paywatch.webhooks.signing import generate_secret
from support import ACCOUNT, USDC, Shop, make_batch, make_credit
from support.locks import somebody_waits_for_a_lock

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
TIP = Position.after_ledger(1234)
URL = "https://shop.example/webhooks"
SEED = "SDJHRQF4GCMIIKAAAQ6IHY42X73FQFLHUULAPSKKD4DFDM7UXWWCRHBE"


@dataclass
class Counter:
    """A counter where sessions are opened, at noon, at a known tip."""

    engine: AsyncEngine
    now: datetime = NOON
    tips: int = 0
    horizon: HorizonUnavailable | None = None
    token_bytes: Callable[[int], bytes] = field(default_factory=lambda: Random(7).randbytes)
    vault: Vault = field(default_factory=lambda: Vault(b"k" * 32))

    async def tip(self) -> Position:
        self.tips += 1
        if self.horizon is not None:
            raise self.horizon
        return TIP

    @property
    def checkout(self) -> Checkout:
        return Checkout(
            engine=self.engine,
            clock=lambda: self.now,
            token_bytes=self.token_bytes,
            new_secret=generate_secret,
            check_url=lambda url: check_url(url, Policy()),
            vault=self.vault,
            source=self,
        )

    async def merchant(self, url: str | None = None) -> NewMerchant:
        return await self.checkout.create_merchant("Shop", ACCOUNT, url)


@pytest.fixture
def counter(engine: AsyncEngine) -> Counter:
    return Counter(engine)


async def rows(engine: AsyncEngine, sql: str) -> list[tuple[Any, ...]]:
    return await Shop(engine).rows(sql)


def request(merchant: NewMerchant, **changes: Any) -> SessionRequest:
    values: dict[str, Any] = {"merchant_id": merchant.merchant_id, "amount": "12.5"}
    return SessionRequest(**(values | {"asset": "native"} | changes))


# Merchants.


async def test_a_merchant_is_watched_from_the_tip_as_a_number_and_its_secret_is_sealed(
    counter: Counter,
) -> None:
    """Never from `now`, which is another place at each use (lessons 6 and 15)."""
    made = await counter.checkout.create_merchant("  Shop  ", ACCOUNT, URL)
    assert (made.name, made.account, made.start_position) == ("Shop", ACCOUNT, TIP)
    assert counter.tips == 1
    assert await rows(counter.engine, "SELECT id, name, created_at FROM merchants") == [
        (made.merchant_id, "Shop", NOON)
    ]
    assert await rows(counter.engine, "SELECT account, start_position FROM accounts") == [
        (ACCOUNT, TIP)
    ]
    assert await rows(counter.engine, "SELECT stream, position FROM cursors") == [
        (live_stream(ACCOUNT), TIP)
    ]
    [(endpoint_id, url, sealed)] = await rows(
        counter.engine, "SELECT id, url, sealed_secret FROM endpoints"
    )
    assert (endpoint_id, url) == (made.endpoint_id, URL)
    assert made.webhook_secret is not None
    assert made.webhook_secret.encode() not in sealed
    assert counter.vault.open(sealed, endpoint_id) == made.webhook_secret
    assert made.webhook_secret not in repr(made)


async def test_without_a_url_there_is_no_endpoint_and_no_secret(counter: Counter) -> None:
    made = await counter.merchant()
    assert (made.endpoint_id, made.webhook_url, made.webhook_secret) == (None, None, None)
    assert await rows(counter.engine, "SELECT * FROM endpoints") == []


@pytest.mark.parametrize(
    ("name", "account", "field_", "problem"),
    [
        ("", ACCOUNT, "name", "1 to 200"),
        ("   ", ACCOUNT, "name", "1 to 200"),
        ("x" * 201, ACCOUNT, "name", "1 to 200"),
        ("a\0b", ACCOUNT, "name", "NUL"),
        ("a\udc80", ACCOUNT, "name", "Unicode"),
        ("Shop", "", "account", "G… address"),
        ("Shop", ACCOUNT[:-1] + ("A" if ACCOUNT[-1] != "A" else "B"), "account", "G… address"),
        ("Shop", ACCOUNT.lower(), "account", "G… address"),
        ("Shop", SEED, "account", "secret seed"),
        (f"Shop of {SEED.lower()}!", ACCOUNT, "name", "secret seed"),
        (
            "Shop",
            "MA7QYNF7SOWQ3GLR2BGMZEHXAVIRZA4KVWLTJJFC7MGXUA74P7UJVAAAAAAAAAAAAAJLK",
            "account",
            "muxed",
        ),
    ],
)
async def test_a_merchant_that_cannot_be_is_refused_by_field_before_anything_is_asked(
    counter: Counter, name: str, account: str, field_: str, problem: str
) -> None:
    with pytest.raises(InvalidInput, match=problem) as refused:
        await counter.checkout.create_merchant(name, account)
    assert refused.value.field == field_
    assert SEED not in str(refused.value)
    assert counter.tips == 0


async def test_spaces_around_a_long_name_do_not_count(counter: Counter) -> None:
    made = await counter.checkout.create_merchant(" " * 200 + "x" * 200, ACCOUNT)
    assert made.name == "x" * 200


async def test_a_url_that_webhooks_may_not_go_to_is_refused(counter: Counter) -> None:
    with pytest.raises(WebhookRefused):
        await counter.merchant("https://127.0.0.1/webhooks")
    assert await rows(counter.engine, "SELECT * FROM merchants") == []


async def test_an_account_is_watched_for_one_merchant_only(counter: Counter) -> None:
    await counter.merchant(URL)
    with pytest.raises(InvalidInput, match="account: is watched for a merchant already"):
        await counter.merchant(URL)
    for table in ("merchants", "accounts", "cursors", "endpoints"):
        assert await rows(counter.engine, f"SELECT count(*) FROM {table}") == [(1,)], table


async def test_while_horizon_is_away_nobody_is_registered(counter: Counter) -> None:
    """Without a number to begin from there would be a gap or a replay."""
    counter.horizon = HorizonUnavailable("timeout", "no answer in time")
    with pytest.raises(HorizonUnavailable):
        await counter.merchant()
    assert await rows(counter.engine, "SELECT * FROM merchants") == []


# Sessions.


async def test_a_session_is_written_as_it_is_returned_opened_where_the_stream_stands(
    counter: Counter,
) -> None:
    merchant = await counter.merchant()
    made = await counter.checkout.create_session(
        request(merchant, asset=str(USDC), reference="order 7", expires_in=timedelta(hours=1))
    )
    assert (made.amount, made.asset, made.status) == (125_000_000, USDC, SessionStatus.PENDING)
    assert (made.expires_at, made.reference) == (NOON + timedelta(hours=1), "order 7")
    assert made.memo == Memo.of_id(made.muxed_id), "one number for both kinds of payers"
    assert 0 <= made.muxed_id < 2**63
    view = await counter.checkout.read_session(made.id)
    assert view.session == made
    assert (view.credits, view.payments, view.events) == ([], [], [])
    assert await rows(
        counter.engine, "SELECT opened_position, created_at, updated_at FROM checkout_sessions"
    ) == [(TIP, NOON, NOON)]


@pytest.mark.parametrize(
    ("memo_type", "memo", "expected"),
    [
        ("id", "18446744073709551615", Memo.of_id(2**64 - 1)),
        ("id", "007", Memo.of_id(7)),
        ("text", "Ørder 7 ", Memo(MemoType.TEXT, "Ørder 7 ".encode())),
        ("hash", "AB" * 32, Memo(MemoType.HASH, b"\xab" * 32)),
    ],
)
async def test_a_merchant_may_choose_the_memo(
    counter: Counter, memo_type: str, memo: str, expected: Memo
) -> None:
    merchant = await counter.merchant()
    made = await counter.checkout.create_session(request(merchant, memo_type=memo_type, memo=memo))
    assert made.memo == expected
    assert made.muxed_id != 7, "its muxed number is random all the same"


async def test_a_chosen_kind_without_a_memo_gets_one_of_that_kind(counter: Counter) -> None:
    merchant = await counter.merchant()
    text = await counter.checkout.create_session(request(merchant, memo_type="text"))
    hash_ = await counter.checkout.create_session(request(merchant, memo_type="hash"))
    assert text.memo == Memo(MemoType.TEXT, str(text.muxed_id).encode())
    assert (hash_.memo.type, len(set(hash_.memo.value)) > 8) == (MemoType.HASH, True)


@pytest.mark.parametrize(
    ("changes", "field_", "problem"),
    [
        ({"amount": ""}, "amount", "decimal"),
        ({"amount": "1e3"}, "amount", "decimal"),
        ({"amount": "-1"}, "amount", "decimal"),
        ({"amount": "\uff11"}, "amount", "decimal"),
        ({"amount": "0.00000001"}, "amount", "7 places"),
        ({"amount": "0"}, "amount", "above 0"),
        ({"amount": "922337203685.4775808"}, "amount", "at most"),
        ({"asset": "XLM"}, "asset", "CODE:ISSUER"),
        ({"asset": ""}, "asset", "CODE:ISSUER"),
        ({"asset": f"USDC:{'G' * 56}"}, "asset", "issuer"),
        ({"expires_in": timedelta(0)}, "expires_in", "between"),
        ({"expires_in": timedelta(days=366)}, "expires_in", "between"),
        ({"memo_type": "return"}, "memo_type", "id, text or hash"),
        ({"memo_type": "none"}, "memo_type", "id, text or hash"),
        ({"memo": "1.5"}, "memo", "decimal"),
        ({"memo": "18446744073709551616"}, "memo", "between"),
        ({"memo_type": "text", "memo": ""}, "memo", "28 bytes"),
        ({"memo_type": "text", "memo": "ø" * 15}, "memo", "28 bytes"),
        ({"memo_type": "hash", "memo": "ab"}, "memo", "64 hexadecimal"),
        ({"reference": "x" * 201}, "reference", "200"),
        ({"reference": "a\0b"}, "reference", "NUL"),
        ({"reference": f"order-{SEED}"}, "reference", "secret seed"),
        ({"reference": "a\ud800"}, "reference", "Unicode"),
    ],
)
async def test_a_session_that_cannot_be_is_refused_by_field(
    counter: Counter, changes: dict[str, Any], field_: str, problem: str
) -> None:
    merchant = await counter.merchant()
    with pytest.raises(InvalidInput, match=problem) as refused:
        await counter.checkout.create_session(request(merchant, **changes))
    assert refused.value.field == field_
    assert await rows(counter.engine, "SELECT * FROM checkout_sessions") == []


async def test_lesson_12_one_memo_names_one_session(counter: Counter) -> None:
    merchant = await counter.merchant()
    asked = request(merchant, memo_type="text", memo="order 7")
    await counter.checkout.create_session(asked)
    with pytest.raises(InvalidInput, match="memo: another session on this account has it"):
        await counter.checkout.create_session(asked)
    await counter.checkout.create_session(replace(asked, memo="order 7 "))
    await counter.checkout.create_session(replace(asked, memo="order 8"))


async def test_of_two_that_ask_for_one_memo_at_the_same_moment_one_gets_it(
    counter: Counter,
) -> None:
    merchant = await counter.merchant()
    asked = request(merchant, memo="7")
    results = await asyncio.gather(
        *(counter.checkout.create_session(asked) for _ in range(5)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, BaseException)]
    assert len(refused) == 4
    assert all(isinstance(error, InvalidInput) for error in refused)


async def test_a_broken_source_of_randomness_is_not_blamed_on_the_memo(counter: Counter) -> None:
    ids = count(1)
    counter.token_bytes = lambda n: (
        b"\1" * 8 if n == 8 else next(ids).to_bytes(10, "big")  # one muxed id for all
    )
    merchant = await counter.merchant()
    await counter.checkout.create_session(request(merchant, memo="1"))
    with pytest.raises(IntegrityError, match="muxed_id"):
        await counter.checkout.create_session(request(merchant, memo="2"))


async def test_an_unknown_merchant_or_session_is_not_found(counter: Counter) -> None:
    merchant = await counter.merchant()
    unknown = replace(request(merchant), merchant_id=uuid4())
    with pytest.raises(NotFound, match="no merchant"):
        await counter.checkout.create_session(unknown)
    with pytest.raises(NotFound, match="no session"):
        await counter.checkout.read_session(uuid4())


@pytest.mark.breaks_invariants
async def test_a_session_that_no_stream_would_see_paid_is_not_opened(counter: Counter) -> None:
    merchant = await counter.merchant()
    await Shop(counter.engine).execute("DELETE FROM cursors")
    with pytest.raises(NotFound, match="not watched"):
        await counter.checkout.create_session(request(merchant))
    assert await rows(counter.engine, "SELECT * FROM checkout_sessions") == []


async def test_a_session_opened_while_a_batch_is_settled_is_opened(
    counter: Counter, database_url: str
) -> None:
    """SERIALIZABLE, it would fail: it read the cursor that the batch moved, and the batch looked
    for a session that it adds. Nobody would try it again.
    """
    merchant = await counter.merchant()
    shop = Shop(counter.engine, merchant_id=merchant.merchant_id)
    first = await counter.checkout.create_session(request(merchant, memo="1"))
    claim = await shop.claim()
    with psycopg.connect(database_url) as holder, psycopg.connect(database_url) as watcher:
        # Somebody is about to take the memo, and does not in the end.
        holder.execute("UPDATE checkout_sessions SET memo = int8send(7) WHERE id = %s", [first.id])
        opening = asyncio.ensure_future(
            counter.checkout.create_session(request(merchant, memo="7"))
        )
        await somebody_waits_for_a_lock(watcher)
        batch = make_batch([make_credit(ledger=1300, memo=Memo.of_id(7))], claim.position)
        await shop.settler.settle(Order(batch, claim.stream, claim))
        holder.rollback()
        opened = await opening
    assert (await counter.checkout.read_session(opened.id)).session == opened


async def test_ids_are_of_version_7_and_sort_as_they_were_made(counter: Counter) -> None:
    """RFC 9562: new rows lie together in the indexes, and the newest are found by the key."""
    merchant = await counter.merchant()
    made: list[UUID] = [merchant.merchant_id]
    for milliseconds in range(1, 6):
        counter.now = NOON + timedelta(milliseconds=milliseconds)
        made.append((await counter.checkout.create_session(request(merchant))).id)
    assert made == sorted(made)
    assert len(set(made)) == 6
    assert {(id_.version, id_.variant) for id_ in made} == {(7, "specified in RFC 4122")}
    assert made[-1].int >> 80 == int(counter.now.timestamp() * 1000)
    listed = await counter.checkout.list_sessions(limit=3)
    assert [session.id for session in listed] == made[:-4:-1]


async def test_a_list_is_of_one_status_or_of_all(counter: Counter) -> None:
    merchant = await counter.merchant()
    first, second = [
        await counter.checkout.create_session(request(merchant, memo=memo, amount="0.00001"))
        for memo in ("1", "2")
    ]
    shop = Shop(counter.engine, merchant_id=merchant.merchant_id)
    await shop.settle(make_credit(100, ledger=1300, memo=Memo.of_id(1), closed_at=NOON))
    checkout = counter.checkout
    assert [s.id for s in await checkout.list_sessions(SessionStatus.PAID)] == [first.id]
    assert [s.id for s in await checkout.list_sessions(SessionStatus.PENDING)] == [second.id]
    assert {s.id for s in await checkout.list_sessions()} == {first.id, second.id}


async def test_a_paid_session_is_read_with_all_that_belongs_to_it_and_nothing_else(
    counter: Counter,
) -> None:
    merchant = await counter.merchant(URL)
    made, _other = [
        await counter.checkout.create_session(request(merchant, memo=memo, amount="0.00001"))
        for memo in ("1", "2")
    ]
    shop = Shop(counter.engine, merchant_id=merchant.merchant_id)
    await shop.settle(
        make_credit(40, ledger=1301, op=1, closed_at=NOON),
        make_credit(20, ledger=1301, op=2, closed_at=NOON),
        make_credit(60, ledger=1302, closed_at=NOON),
        make_credit(10, ledger=1303, closed_at=NOON),  # duplicate
        make_credit(100, ledger=1304, memo=Memo.of_id(2), closed_at=NOON),
    )
    view = await counter.checkout.read_session(made.id)
    assert (view.session.status, view.session.received) == (SessionStatus.PAID, 120)
    assert [(row.outcome, row.amount) for row in view.credits] == [
        ("applied", 40),
        ("applied", 20),
        ("applied", 60),
        ("duplicate", 10),
    ]
    assert [(row.ledger, row.amount) for row in view.payments] == [(1301, 60), (1302, 60)]
    assert [(row.type, row.state, row.attempts_made) for row in view.events] == [
        ("checkout.session.paid", "pending", 0)
    ]

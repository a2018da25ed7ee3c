"""A shop, its payers and its webhooks around a daemon that is killed, and what must come of them.

What becomes of each session is written down when it is paid. The database, the ledger and what the
merchant has received are held against that, one for one.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final

import psycopg
from sqlalchemy.ext.asyncio import AsyncEngine
from stellar_sdk import ChangeTrust, CreateAccount, IdMemo, Memo, Payment, TransactionEnvelope

from paywatch.sim import LedgerSettings, Merchant, NetworkSettings, SimNetwork, Wallet
from paywatch.sim.wallet import NATIVE
from paywatch.store.engine import create_engine
from paywatch.store.invariants import find_violations
from support.commands import answer
from support.site import USD, environ_of, settings_of

LONGEST_S: Final = 60.0  # until all is settled and told
LOOK_S: Final = 0.01
SESSIONS: Final = 20_000  # numbered from 1; each asks for one lumen
NOBODYS: Final = 1_000_000  # no session has so high a number
STROOPS: Final = 10_000_000
PENDING: Final = ("pending", 0)
AUDITS: Final = {"PAYWATCH_AUDIT_INTERVAL": "300", "PAYWATCH_AUDIT_WINDOW": "300"}

_OPEN_SESSIONS: Final = """
INSERT INTO checkout_sessions (id, merchant_id, account, memo_type, memo, muxed_id, asset, amount,
       expires_at, created_at, updated_at, opened_position, reference, least_amount, accept_until,
       text_for_id)
SELECT gen_random_uuid(), merchant_id, account, 'id', int8send(n), n, 'native', 10000000,
       now() + interval '1 day', now() - interval '1 day', now() - interval '1 day', start_position,
       'order-' || n, 10000000, now() + interval '1 day', true
  FROM accounts, generate_series(1, %s::bigint) n"""

# How far it is: what a moment ago was not yet so.
_STAND: Final = """
SELECT (SELECT count(*) FROM credits),
       (SELECT count(*) FROM deliveries WHERE state = 'delivered'),
       (SELECT count(*) FROM deliveries WHERE state <> 'delivered'),
       (SELECT count(*) FROM cursors WHERE end_position IS NOT NULL)
       + (SELECT count(*) FROM checkout_sessions WHERE status = 'processing')"""
_SESSIONS: Final = """
SELECT muxed_id, status, received FROM checkout_sessions
 WHERE updated_at > created_at ORDER BY 1"""
_CREDITS: Final = "SELECT operation_id, amount, outcome FROM credits ORDER BY 1"
_TOLD: Final = """
SELECT e.id::text, e.payload, d.attempts_made, s.muxed_id, e.type
  FROM events e JOIN deliveries d ON d.event_id = e.id
  LEFT JOIN checkout_sessions s ON s.id = e.subject"""


@dataclass
class Town:
    """The world of one daemon.

    Attributes:
        sessions: what must have become of each that was paid or had its deadline: its status, and
            the stroops that it received.
        held: how many credits must be held, by their outcome.
        webhooks: how many came for each event.
    """

    network: SimNetwork
    merchant: Merchant
    shop: Wallet
    customer: Wallet
    issuer: Wallet
    url: str
    environ: dict[str, str]
    secret: str
    engine: AsyncEngine
    conn: psycopg.AsyncConnection[Any]
    began: datetime
    sessions: dict[int, tuple[str, int]] = field(default_factory=dict)
    held: Counter[str] = field(default_factory=Counter)
    webhooks: Counter[str] = field(default_factory=Counter)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _bodies: dict[str, bytes] = field(default_factory=dict)
    _strange: list[str] = field(default_factory=list)

    async def pay(self) -> None:
        """Close two ledgers with payments of every kind, some for sessions of the last time."""
        earlier = [n for n, become in self.sessions.items() if become[0] == "partially_paid"][-1:]
        told = [n for n, become in self.sessions.items() if become[0] == "paid"][-1:]
        whole, parts, twice, several, other = (next(self.numbers) for _ in range(5))
        part = next(self.numbers)
        first = [
            self._payment(whole, "1"),
            self._payment(parts, "0.25"),
            self._payment(twice, "1"),
            self._payment(twice, "1"),
            self._payment(part, "0.5"),
            self._payment(NOBODYS + whole, "3"),
            self._payment(other, "2", dollars=True),
            *(self._payment(number, "1.5") for number in told),
            *(self._payment(number, "0.5") for number in earlier),
        ]
        many = [Payment(self.shop.muxed(several), NATIVE, "0.4") for _ in range(3)]
        second = [self._payment(parts, "0.75"), self.customer.build(many)]
        self.sessions |= dict.fromkeys([whole, parts, twice, *earlier], ("paid", STROOPS))
        self.sessions |= {several: ("paid", 12_000_000), part: ("partially_paid", 5_000_000)}
        self.held.update({"duplicate": 1 + len(told), "unmatched": 1, "wrong_asset": 1})
        for ledger in (first, second):
            await self.network.pay(*ledger, at=self.now())

    async def pay_one(self, number: int) -> str:
        """Pay one session in whole; gives the hash of the transaction."""
        [tx] = await self.network.pay(self._payment(number, "1"), at=self.now())
        self.sessions[number] = ("paid", STROOPS)
        return tx.hash

    def now(self) -> datetime:
        """The present as a ledger's time: whole seconds, never before the last one's."""
        return max(datetime.now(UTC).replace(microsecond=0), self.network.ledger.latest.closed_at)

    async def execute(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement, in a transaction of its own, on a server that may have been killed."""
        try:
            cursor = await self.conn.execute(sql, values)
        except psycopg.OperationalError:
            self.conn = await psycopg.AsyncConnection.connect(self.url, autocommit=True)
            cursor = await self.conn.execute(sql, values)
        return [] if cursor.description is None else await cursor.fetchall()

    async def expire_leases(self) -> None:
        """Play the clock's part: the leases of a killed dispatcher run out now, not in a minute."""
        await self.execute(
            "UPDATE deliveries SET lease_until = now() WHERE lease_token IS NOT NULL"
        )

    async def rests(self) -> None:
        """Wait until everything is settled and everybody is told; polled, rows have no event."""
        credits_ = len(self._ledgers_credits())
        deadline = time.monotonic() + LONGEST_S
        while True:
            [(found, delivered, waiting, unfinished)] = await self.execute(_STAND)
            if found >= credits_ and delivered >= self._events and not waiting + unfinished:
                return
            assert time.monotonic() < deadline, (
                f"{found} of {credits_} credits, {delivered} of {self._events} events delivered,"
                f" {waiting} wait, {unfinished} backfills or announcements unfinished"
            )
            await asyncio.sleep(LOOK_S)

    async def differences(self) -> list[str]:
        """Everything that is not as it must be, now that all is at rest; one line each."""
        self._take_in()
        found = [*self._strange, *await self._differences_of_rows(), *await self._untrue_tellings()]
        now = datetime.now(UTC)
        async with self.engine.connect() as conn:
            found += [str(one) for one in await find_violations(conn, now, self.began)]
        return found

    @property
    def _events(self) -> int:
        ends = sum(status in {"paid", "expired"} for status, _ in self.sessions.values())
        return ends + self.held.total()

    async def _differences_of_rows(self) -> list[str]:
        rows = await self.execute(_SESSIONS)
        sessions = {number: (status, received) for number, status, received in rows}
        keys = sorted(sessions.keys() | self.sessions.keys())
        found = [
            f"session {number} is {sessions.get(number, PENDING)}, not {self.sessions.get(number)}"
            for number in keys
            if sessions.get(number, PENDING) != self.sessions.get(number, PENDING)
        ]
        credits_ = await self.execute(_CREDITS)
        ledgers, ours = self._ledgers_credits(), [(row[0], row[1]) for row in credits_]
        for operation_id, amount in sorted(set(ledgers) ^ set(ours)):
            where = "not on the ledger" if (operation_id, amount) in ours else "no credit"
            found.append(f"operation {operation_id} of {amount} stroops: {where}")
        held = Counter(outcome for _, _, outcome in credits_ if outcome != "applied")
        return found + ([f"held: {held}, not {self.held}"] if held != self.held else [])

    async def _untrue_tellings(self) -> list[str]:
        """Every event came, by as many requests at least as attempts are recorded; no other did."""
        found, known, paid = [], set(), Counter[int]()
        for id_, payload, attempts, number, type_ in await self.execute(_TOLD):
            known.add(id_)
            paid[number] += type_ == "checkout.session.paid"
            if self._bodies.get(id_) != payload:
                found.append(f"event {id_}: the body that came is not the one that is stored")
            if self.webhooks[id_] < attempts:
                found.append(f"event {id_}: {attempts} attempts, {self.webhooks[id_]} came")
        found += [f"event {id_} came, and is none" for id_ in self._bodies.keys() - known]
        return found + [
            f"session {number}: {paid[number]} paid events"
            for number, (status, _) in self.sessions.items()
            if paid[number] != (status == "paid")
        ]

    def _take_in(self) -> None:
        """Look at what the merchant has received since the last time."""
        for webhook in self.merchant.received:
            self.webhooks[webhook.id] += 1
            if self._bodies.setdefault(webhook.id, webhook.body) != webhook.body:
                self._strange.append(f"event {webhook.id} came with two bodies")
            if not webhook.verified_by(self.secret):
                self._strange.append(f"event {webhook.id} is not signed by us")
        self.merchant.received.clear()

    @property
    def credits(self) -> int:
        """How many payments to the shop are on the ledger."""
        return len(self._ledgers_credits())

    def _ledgers_credits(self) -> list[tuple[int, int]]:
        """The customer's payments to the shop as the ledger has them: operation and stroops."""
        return [
            (operation.id, round(float(operation.details["amount"]) * STROOPS))
            for operation in self.network.ledger.history.payments_of(self.shop.account_id)
            if operation.type == "payment" and self.customer.account_id in operation.participants
        ]

    def _payment(self, number: int, amount: str, *, dollars: bool = False) -> TransactionEnvelope:
        memo: Memo = IdMemo(number)
        asset = USD if dollars else NATIVE
        return self.customer.pay(self.shop.account_id, amount, asset, memo)


@asynccontextmanager
async def open_town(database_url: str) -> AsyncIterator[Town]:
    """Make a network with money on it, a merchant with an endpoint, and sessions."""
    began = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    settings = NetworkSettings(started_at=began, ledger=LedgerSettings())
    engine = create_engine(database_url)
    async with (
        SimNetwork(settings) as network,
        Merchant() as merchant,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn,
    ):
        shop, customer, issuer = (network.wallet(n) for n in ("shop", "customer", "issuer"))
        wallets = (shop, customer, issuer)
        made = [CreateAccount(wallet.account_id, "1000000") for wallet in wallets]
        await network.pay(network.root.build(made))
        await network.pay(*(wallet.build([ChangeTrust(USD)]) for wallet in (shop, customer)))
        await network.pay(issuer.build([Payment(customer.account_id, USD, "500000")]))
        settings_ = settings_of(network, database_url) | AUDITS
        environ = environ_of(settings_)
        names = ("--name", "Shop", "--account", shop.account_id)
        url = ("--webhook-url", f"{merchant.url}/hook")
        opened = await answer(environ, "merchant", "create", *names, *url)
        await conn.execute(_OPEN_SESSIONS, [SESSIONS])
        town = Town(
            network, merchant, shop, customer, issuer, database_url, environ,
            opened["webhook_secret"], engine, conn, began,
        )  # fmt: skip
        yield town
        await town.conn.close()
    await engine.dispose()

"""Builders for tests: a shop in a real database, and credits as the ledger would bring them."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from stellar_sdk import Keypair

from paywatch.domain.checkout import CheckoutSession, SessionStatus
from paywatch.domain.ledger import Asset, Batch, Credit, LedgerRecord, Memo, Position
from paywatch.domain.policy import Policy
from paywatch.service.settle import Order, Settled, Settler
from paywatch.store import checkout, cursors, merchants
from paywatch.store.cursors import Cursor, live_stream
from paywatch.store.merchants import Endpoint, WatchedAccount
from paywatch.telemetry import Metrics

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
FIRST_LEDGER = 1000
SPACE = UUID("00000000-0000-5000-8000-000000000000")


def address(name: str) -> str:
    """A valid G… address, the same for the same name."""
    return Keypair.from_raw_ed25519_seed(hashlib.sha256(name.encode()).digest()).public_key


ACCOUNT = address("shop")
PAYER = address("payer")
USDC = Asset("USDC", address("issuer"))
XLM = Asset.native()
MERCHANT_ID = uuid5(SPACE, "merchant")
ENDPOINT_ID = uuid5(SPACE, "endpoint")
START = Position.of(FIRST_LEDGER)


def closing(ledger: int) -> datetime:
    """When a ledger closed: every 5 seconds, FIRST_LEDGER at NOW."""
    return NOW + timedelta(seconds=5 * (ledger - FIRST_LEDGER))


def make_session(number: int = 1, **changes: Any) -> CheckoutSession:
    """A pending session over 100 stroops of XLM, named by the id memo `number`."""
    values: dict[str, Any] = {
        "id": uuid5(SPACE, f"session {number}"),
        "merchant_id": MERCHANT_ID,
        "account": ACCOUNT,
        "memo": Memo.of_id(number),
        "muxed_id": number,
        "asset": XLM,
        "amount": 100,
        "received": 0,
        "status": SessionStatus.PENDING,
        "expires_at": NOW + timedelta(minutes=30),
        "opened_position": START,
        "reference": f"order-{number}",
    }
    values |= changes
    # Without other terms: the whole amount, until the deadline.
    values.setdefault("terms", Policy().terms(values["amount"], values["expires_at"]))
    return CheckoutSession(**values)


def make_credit(
    amount: int = 100, *, ledger: int = 1001, tx: int = 1, op: int = 1, **changes: Any
) -> Credit:
    """A credit of XLM with the id memo 1; its transaction's hash follows from ledger and `tx`."""
    values: dict[str, Any] = {
        "operation_id": Position.of(ledger, tx, op),
        "change_index": 0,
        "account": ACCOUNT,
        "muxed_id": None,
        "asset": XLM,
        "amount": amount,
        "tx_hash": hashlib.sha256(f"{ledger}/{tx}".encode()).hexdigest(),
        "inner_tx_hash": None,
        "payer": PAYER,
        "memo": Memo.of_id(1),
        "closed_at": closing(ledger),
    }
    return Credit(**(values | changes))


def make_batch(credits_: Iterable[Credit], after: int = 0, upto: int | None = None) -> Batch:
    """One record for each operation among these credits, in ledger order."""
    by_operation: dict[Position, list[Credit]] = {}
    for credit in sorted(credits_, key=lambda credit: credit.key):
        by_operation.setdefault(credit.operation_id, []).append(credit)
    records = tuple(
        LedgerRecord(operation_id, tuple(group), None, {"id": str(operation_id)})
        for operation_id, group in by_operation.items()
    )
    return batch_of(records, after, upto)


def batch_of(records: Sequence[LedgerRecord], after: int = 0, upto: int | None = None) -> Batch:
    """A batch that ends at its last record, or at `upto`."""
    end = Position(upto if upto is not None else records[-1].operation_id)
    return Batch(tuple(records), Position(after), end, closing(end.ledger), len(records))


@dataclass
class Shop:
    """A merchant with an account, an endpoint and sessions, in a database."""

    engine: AsyncEngine
    account: str = ACCOUNT
    merchant_id: UUID = MERCHANT_ID
    endpoint_id: UUID = ENDPOINT_ID
    position: Position = START
    metrics: Metrics = field(default_factory=Metrics)
    told: int = 0

    async def open(self, url: str | None = "https://shop.example/webhooks") -> "Shop":
        async with self.engine.begin() as conn:
            await merchants.insert_merchant(conn, self.merchant_id, "Shop", NOW)
            watched = WatchedAccount(self.account, self.merchant_id, self.position)
            await merchants.insert_account(conn, watched, NOW)
            cursor = Cursor(live_stream(self.account), self.account, self.position)
            await cursors.open_stream(conn, cursor, NOW)
            if url is not None:
                endpoint = Endpoint(self.endpoint_id, url, b"sealed")
                await merchants.insert_endpoint(conn, self.merchant_id, endpoint, NOW)
        return self

    async def add_session(self, number: int = 1, **changes: Any) -> CheckoutSession:
        session = make_session(
            number, **({"merchant_id": self.merchant_id, "account": self.account} | changes)
        )
        async with self.engine.begin() as conn:
            await checkout.insert(conn, session, NOW)
        return session

    @property
    def settler(self) -> Settler:
        return Settler(self.engine, self.metrics, lambda: NOW, Random(1), self._on_told)

    def _on_told(self) -> None:
        self.told += 1

    async def claim(self) -> Cursor:
        async with self.engine.begin() as conn:
            claim = await cursors.claim(conn, live_stream(self.account), NOW)
        assert claim is not None
        return claim

    async def settle(self, *credits_: Credit) -> Settled:
        """Settle credits as recovery would: without a cursor."""
        return await self.settler.settle(Order(make_batch(credits_), by="test"))

    async def rows(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        async with self.engine.begin() as conn:
            return [tuple(row) for row in await conn.execute(text(sql), parameters)]

    async def execute(self, sql: str, **parameters: Any) -> None:
        async with self.engine.begin() as conn:
            await conn.execute(text(sql), parameters)

    async def session(self, number: int = 1) -> tuple[str, int]:
        """A session's status and the stroops that it received."""
        [(status, received)] = await self.rows(
            "SELECT status, received FROM checkout_sessions WHERE muxed_id = :n", n=number
        )
        return status, received

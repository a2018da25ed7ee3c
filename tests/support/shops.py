"""Shops with many sessions, and a ledger on which people pay them in every way there is."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from random import Random
from typing import Final

import psycopg
from stellar_sdk import (
    Asset,
    ChangeTrust,
    CreateAccount,
    IdMemo,
    Memo,
    Operation,
    Payment,
    TextMemo,
    TransactionEnvelope,
)

from paywatch.domain.ledger import Position
from paywatch.sim import SimNetwork, Wallet, asset_of
from paywatch.sim.wallet import NATIVE
from support import ENDPOINT_ID, MERCHANT_ID

USD: Final = asset_of("USD", "issuer")
RATES: Final = {(NATIVE, USD): Fraction(1, 8)}
AMOUNT: Final = 100_000_000  # stroops that each session asks for: ten lumens
AMOUNTS: Final = ("10", "10", "10", "4", "6", "25", "0.0000001")

_OPEN_MERCHANT = """
INSERT INTO merchants (id, name, created_at) VALUES (%(merchant)s, 'Shop', %(now)s)"""
_OPEN_ENDPOINT = """
INSERT INTO endpoints (id, merchant_id, url, sealed_secret, created_at)
VALUES (%(endpoint)s, %(merchant)s, 'https://shop.example/webhooks', 'sealed', %(now)s)"""
_OPEN_ACCOUNTS = """
WITH watched AS (
    INSERT INTO accounts (account, merchant_id, start_position, created_at)
    SELECT a, %(merchant)s, %(position)s, %(now)s FROM unnest(%(accounts)s::text[]) a
    RETURNING account, start_position
)
INSERT INTO cursors (stream, account, position, updated_at)
SELECT 'live:' || account, account, start_position, %(now)s FROM watched"""
# The n-th session's reference is n, and it is on the n-th account, round and round.
_OPEN_SESSIONS = """
INSERT INTO checkout_sessions (id, merchant_id, account, memo_type, memo, muxed_id, asset, amount,
       expires_at, created_at, updated_at, opened_position, reference, least_amount, accept_until,
       text_for_id)
SELECT gen_random_uuid(), %(merchant)s, (%(accounts)s::text[])[n %% %(watched)s + 1], 'id',
       int8send(n), n, %(asset)s, %(amount)s, due, %(now)s, %(now)s, %(position)s, 'order-' || n,
       %(amount)s, due, true
  FROM generate_series(1, %(sessions)s::bigint) n,
       LATERAL (SELECT (%(deadlines)s::timestamptz[])[n %% %(kinds)s + 1] AS due) d"""


@dataclass(frozen=True)
class Opening:
    """A merchant with many accounts and sessions, opened at one moment of the ledger.

    Attributes:
        deadlines: of the sessions, in turn.
        told: whether the merchant has an endpoint.
    """

    accounts: Sequence[str]
    sessions: int
    position: Position
    at: datetime
    deadlines: Sequence[datetime]
    told: bool = True
    asset: str = "native"

    def write(self, url: str) -> None:
        """Write it all, by a few statements."""
        values = {
            "merchant": MERCHANT_ID,
            "endpoint": ENDPOINT_ID,
            "accounts": list(self.accounts),
            "watched": len(self.accounts),
            "position": int(self.position),
            "sessions": self.sessions,
            "amount": AMOUNT,
            "asset": self.asset,
            "deadlines": list(self.deadlines),
            "kinds": len(self.deadlines),
            "now": self.at,
        }
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(_OPEN_MERCHANT, values)
            if self.told:
                conn.execute(_OPEN_ENDPOINT, values)
            conn.execute(_OPEN_ACCOUNTS, values)
            conn.execute(_OPEN_SESSIONS, values)
            # Only what has rows: a table that was seen empty is taken to stay so, and is read as a
            # whole at each check of a foreign key.
            conn.execute("VACUUM ANALYZE merchants, endpoints, accounts, checkout_sessions")


class Street:
    """People who pay a shop's sessions: in whole, in part, twice, too much, in another asset.

    Several operations to a transaction, for several sessions of one account or of many; by the
    memo or by the muxed address; some name no session at all.

    Args:
        network: whose clock nobody runs.
        rng: draws it all.
        shops: the accounts that are paid; the n-th session is on the n-th, round and round.
        sessions: how many there are.
    """

    def __init__(
        self, network: SimNetwork, rng: Random, shops: Sequence[Wallet], sessions: int
    ) -> None:
        self.network = network
        self.operations = 0
        self._rng = rng
        self._shops = shops
        self._sessions = sessions
        self._issuer = network.wallet("issuer")

    async def open(self) -> None:
        """Make the accounts, which trust the issuer's dollars."""
        wallets = [*self._shops, self._issuer]
        made: list[Operation] = [CreateAccount(w.account_id, "100") for w in wallets]
        for start in range(0, len(made), 100):
            self.network.submit(self.network.root.build(made[start : start + 100]))
        await self.network.close_ledger()
        for shop in self._shops:
            self.network.submit(shop.build([ChangeTrust(USD)]))
        await self.network.close_ledger()

    async def pay(self, transactions: int, at: datetime | None = None) -> None:
        """Close one ledger with so many transactions."""
        for _ in range(transactions):
            self.network.submit(self._tx())
        await self.network.close_ledger(at)

    def _tx(self) -> TransactionEnvelope:
        dollars = self._rng.random() < 0.05
        payer = self._issuer if dollars else self.network.root
        asset = USD if dollars else Asset.native()
        named = self._rng.randint(1, self._sessions)
        memo: Memo = self._rng.choice([IdMemo(named), IdMemo(named), TextMemo(str(named))])
        count = self._rng.choice([1, 1, 1, 2, 3, 7])
        payments = [self._payment(named, asset, alone=count == 1) for _ in range(count)]
        self.operations += count
        return payer.build(payments, memo)

    def _payment(self, named: int, asset: Asset, *, alone: bool) -> Operation:
        number = named if alone else self._rng.randint(1, self._sessions + 2)
        shop = self._shops[number % len(self._shops)]
        to = shop.account_id if alone or self._rng.random() < 0.1 else shop.muxed(number)
        return Payment(to, asset, self._rng.choice(AMOUNTS))

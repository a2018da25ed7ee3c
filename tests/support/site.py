"""A place to run paywatch at: a simulated network with money, a merchant, and settings for both."""

import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from stellar_sdk import (
    ChangeTrust,
    CreateAccount,
    FeeBumpTransactionEnvelope,
    IdMemo,
    Payment,
    TransactionEnvelope,
)

from paywatch.sim import (
    FaultSettings,
    LedgerSettings,
    Merchant,
    NetworkSettings,
    SimNetwork,
    Wallet,
    asset_of,
)
from paywatch.sim.history import AppliedTx
from paywatch.sim.wallet import NATIVE

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
USD = asset_of("USD", "issuer")
RATES = {(NATIVE, USD): Fraction(1, 8)}
Document = dict[str, Any]


@dataclass(frozen=True)
class Site:
    """The surroundings of one paywatch."""

    network: SimNetwork
    merchant: Merchant
    shop: Wallet
    customer: Wallet
    settings: dict[str, str]

    @property
    def environ(self) -> dict[str, str]:
        """An environment without anybody's settings but ours."""
        return environ_of(self.settings)

    def having(self, **settings: str) -> "Site":
        """The same with other settings: `http_port="0"`; an empty one is not set."""
        changed = {f"PAYWATCH_{name.upper()}": value for name, value in settings.items()}
        return replace(self, settings=self.settings | changed)

    async def pay(
        self, *envelopes: TransactionEnvelope | FeeBumpTransactionEnvelope
    ) -> list[AppliedTx]:
        """Submit envelopes and wait until the network's clock has closed a ledger with them."""
        hashes = self.network.submit(*envelopes)

        def applied() -> Sequence[AppliedTx] | None:
            found = [tx for tx in map(self.network.ledger.history.tx, hashes) if tx is not None]
            return found if len(found) == len(hashes) else None

        return list(await self.network.changed.wait_for(applied))

    def payment(self, session: Document, amount: str | None = None) -> TransactionEnvelope:
        """A signed payment of a session as `session create --json` gave it, by its memo."""
        asset = NATIVE if session["asset"] == "native" else USD
        memo = IdMemo(int(session["memo"]))
        return self.customer.pay(session["account"], amount or session["amount"], asset, memo)

    def path_payment(self, session: Document) -> TransactionEnvelope:
        """The same, paid in lumens and received in the session's asset."""
        memo = IdMemo(int(session["memo"]))
        account, amount = session["account"], session["amount"]
        return self.customer.path_receive(account, amount, USD, send_max="5000", memo=memo)

    def webhooks_of(self, session_id: str) -> list[str]:
        """The ids of the paid webhooks that came for a session, one for each delivery."""
        return [
            webhook.id
            for webhook in self.merchant.received
            if webhook.type == "checkout.session.paid"
            and json.loads(webhook.body)["data"]["session_id"] == session_id
        ]


def settings_of(network: SimNetwork, database_url: str) -> dict[str, str]:
    """The settings of a paywatch that watches this network."""
    return {
        "PAYWATCH_DATABASE_URL": database_url,
        "PAYWATCH_SECRET_KEY": KEY,
        "PAYWATCH_HORIZON_URL": network.url,
        "PAYWATCH_NETWORK_PASSPHRASE": network.passphrase,
        "PAYWATCH_HORIZON_HOURLY_REQUESTS": "10000000",
        "PAYWATCH_HTTP_PORT": "0",
        "PAYWATCH_ALLOW_PRIVATE_WEBHOOKS": "true",
        "PAYWATCH_LOG_FORMAT": "json",
    }


def environ_of(settings: Mapping[str, str]) -> dict[str, str]:
    """An environment without anybody's settings but these."""
    others = {k: v for k, v in os.environ.items() if not k.startswith("PAYWATCH_")}
    return others | dict(settings)


@asynccontextmanager
async def open_site(
    database_url: str, close_every_s: float = 0.2, faults: FaultSettings | None = None
) -> AsyncIterator[Site]:
    """A network whose clock runs fast, with a shop and a customer who trust the issuer's USD."""
    settings = NetworkSettings(
        started_at=datetime.now(UTC).replace(microsecond=0),
        ledger=LedgerSettings(rates=RATES),
        close_every_s=close_every_s,
        faults=faults or FaultSettings(),
    )
    async with SimNetwork(settings) as network, Merchant() as merchant:
        shop, customer, issuer = (network.wallet(n) for n in ("shop", "customer", "issuer"))
        environ = settings_of(network, database_url)
        site = Site(network, merchant, shop, customer, environ)
        wallets = (shop, customer, issuer)
        await site.pay(network.root.build([CreateAccount(w.account_id, "100000") for w in wallets]))
        await site.pay(*(wallet.build([ChangeTrust(USD)]) for wallet in (shop, customer)))
        await site.pay(issuer.build([Payment(customer.account_id, USD, "50000")]))
        yield site

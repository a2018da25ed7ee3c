"""A simulated network that is listening, with a client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import aiohttp
from stellar_sdk import Asset, ChangeTrust

from paywatch.sim import LedgerSettings, NetworkSettings, SimNetwork, Wallet, asset_of

USD = asset_of("USD", "issuer")
RATES = {(Asset.native(), USD): Fraction(1, 8)}


@dataclass(slots=True)
class Site:
    """A running network with alice and a shop that trusts USD, and a client."""

    network: SimNetwork
    http: aiohttp.ClientSession
    alice: Wallet
    shop: Wallet

    async def get(self, path: str, **params: str) -> tuple[int, Any]:
        async with self.http.get(self.network.url + path, params=params) as response:
            return response.status, await response.json(content_type=None)

    async def records(self, path: str, **params: str) -> list[dict[str, Any]]:
        status, page = await self.get(path, **params)
        assert status == 200, page
        found: list[dict[str, Any]] = page["_embedded"]["records"]
        return found

    def stream(self, path: str, **params: str) -> Any:
        headers = {"Accept": "text/event-stream"}
        return self.http.get(self.network.url + path, params=params, headers=headers)

    @property
    def payments(self) -> str:
        return f"/accounts/{self.shop.account_id}/payments"


@asynccontextmanager
async def open_site(settings: NetworkSettings | None = None) -> AsyncIterator[Site]:
    """Open one; everybody has 10,000 lumens to begin with."""
    settings = settings or NetworkSettings(ledger=LedgerSettings(rates=RATES))
    async with SimNetwork(settings) as network, aiohttp.ClientSession() as http:
        alice, shop, _ = await network.fund("alice", "shop", "issuer")
        await network.pay(shop.build([ChangeTrust(USD)]))
        yield Site(network, http, alice, shop)

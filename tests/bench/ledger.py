"""The ledger of a benchmark: one payment for each session, kept as Horizon would serve it.

Made by the simulated network, once, and written down as bytes, so that whoever serves it later does
not spend the processor on making records.
"""

import json
import pickle
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
from stellar_sdk import ChangeTrust, IdMemo

from paywatch.domain.ledger import Position
from paywatch.sim import NetworkSettings, SimNetwork, asset_of
from support.shops import Opening

PAGE: Final = 200
A_LEDGER: Final = 100  # payments in each
AMOUNT: Final = "10"  # of each payment, as sessions of `support.shops` ask for
USD: Final = asset_of("USD", "issuer")  # rivals know no payments of lumens
_JOINED: Final = {"join": "transactions", "order": "asc", "limit": str(PAGE)}


@dataclass(frozen=True, slots=True)
class Recorded:
    """What one Horizon says of one account that is paid.

    Attributes:
        seed: the account's secret seed; a rival wants it.
        asset: what it is paid in.
        account: who is paid; its payments are numbered from 1 by their id memos.
        begin: the position before the first payment.
        closed_at: when the ledger there closed.
        documents: bodies by path, without a query.
        pages: bodies of full pages of its payments, by the cursor asked for.
        transactions: paging token and JSON of each transaction, in order.
    """

    passphrase: str
    seed: str
    asset: str
    account: str
    begin: Position
    closed_at: datetime
    documents: dict[str, bytes]
    pages: dict[str, bytes]
    transactions: list[tuple[str, bytes]]

    def opening(self, sessions: int, *, days: int = 30, told: bool = True) -> Opening:
        """One merchant with so many sessions, opened before the first payment, due after days."""
        due = self.closed_at + timedelta(days=days)
        return Opening(
            [self.account], sessions, self.begin, self.closed_at, [due], told, self.asset
        )

    def save(self, file: Path) -> None:
        """Write it for another process."""
        file.write_bytes(pickle.dumps(self))

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read what `save` wrote; raises TypeError for anything else."""
        found = pickle.loads(file.read_bytes())  # noqa: S301 - our own file
        if not isinstance(found, cls):
            raise TypeError(f"{file.name} is no recorded ledger")
        return found


async def record(payments: int, a_ledger: int = A_LEDGER) -> Recorded:
    """Close ledgers with so many payments to one account, and read all of them.

    Args:
        payments: a multiple of PAGE: the last page is full, too.
        a_ledger: payments in each.
    """
    settings = NetworkSettings(started_at=datetime(2026, 11, 1, tzinfo=UTC))
    async with SimNetwork(settings) as network, aiohttp.ClientSession() as http:
        shop, issuer = await network.fund("shop", "issuer")
        await network.pay(shop.build([ChangeTrust(USD)]))
        account, latest = shop.account_id, network.ledger.latest
        begin = Position.after_ledger(latest.sequence)
        for number in range(1, payments + 1):
            network.submit(issuer.pay(account, AMOUNT, USD, IdMemo(number)))
            if number % a_ledger == 0 or number == payments:
                await network.close_ledger()

        async def get(path: str, **query: str) -> bytes:
            async with http.get(network.url + path, params=query) as response:
                return await response.read()

        paths = ("/", f"/accounts/{account}")
        documents = {path: await get(path) for path in paths}
        pages: dict[str, bytes] = {}
        transactions: list[tuple[str, bytes]] = []
        cursor = tx_cursor = str(int(begin))
        while len(transactions) < payments:
            path = f"/accounts/{account}/"
            pages[cursor] = await get(path + "payments", cursor=cursor, **_JOINED)
            cursor = _records(pages[cursor])[-1]["paging_token"]
            found = await get(path + "transactions", cursor=tx_cursor, order="asc", limit=str(PAGE))
            for tx in _records(found):
                tx_cursor = tx["paging_token"]
                transactions.append((tx_cursor, json.dumps(tx, separators=(",", ":")).encode()))
        pages[cursor] = await get(f"/accounts/{account}/payments", cursor=cursor, **_JOINED)
        return Recorded(
            network.passphrase,
            shop.keypair.secret,
            f"{USD.code}:{USD.issuer}",
            account,
            begin,
            latest.closed_at,
            documents,
            pages,
            transactions,
        )


def _records(body: bytes) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads(body)["_embedded"]["records"]
    return records

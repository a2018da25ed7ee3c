"""A simulated network in another process, over HTTP: what a demo's payer needs."""

from types import TracebackType
from typing import Any, Self

import aiohttp
from stellar_sdk import FeeBumpTransactionEnvelope, TransactionEnvelope

from paywatch.sim.wallet import Wallet


class RemoteRefusal(Exception):
    """The network refused; `problem` is Horizon's document."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        codes = problem.get("extras", {}).get("result_codes", problem.get("detail"))
        super().__init__(f"{status} {problem.get('title')}: {codes}")
        self.status = status
        self.problem = problem


class RemoteNetwork:
    """Wallets and submissions by way of a Horizon's address. An async context manager.

    Sequence numbers are counted here: one process must be the only one to use a wallet's name.

    Args:
        url: Horizon's address.
        timeout_s: how long any answer may take; a submission waits for its ledger.
    """

    def __init__(self, url: str, timeout_s: float = 60.0) -> None:
        self._url = url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._http: aiohttp.ClientSession | None = None
        self._sequences: dict[str, int] = {}
        self._passphrase = ""

    async def __aenter__(self) -> Self:
        """Connect, and read the network's name."""
        self._http = aiohttp.ClientSession(timeout=self._timeout)
        try:
            self._passphrase = (await self._call("GET", "/"))["network_passphrase"]
        except BaseException:
            await self._http.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Disconnect."""
        if self._http is not None:
            await self._http.close()

    async def fund(self, name: str) -> Wallet:
        """The wallet of a name; the friendbot makes its account if it does not exist."""
        wallet = Wallet.named(name, self._passphrase, self._next_sequence)
        path = f"/accounts/{wallet.account_id}"
        try:
            account = await self._call("GET", path)
        except RemoteRefusal as refusal:
            if refusal.status != 404:
                raise
            await self._call("GET", "/friendbot", params={"addr": wallet.account_id})
            account = await self._call("GET", path)
        self._sequences[wallet.account_id] = int(account["sequence"])
        return wallet

    async def submit(
        self, envelope: TransactionEnvelope | FeeBumpTransactionEnvelope
    ) -> dict[str, Any]:
        """Submit an envelope and wait for its ledger; gives the transaction's record.

        Raises:
            RemoteRefusal: it was refused, or failed.
        """
        return await self._call("POST", "/transactions", data={"tx": envelope.to_xdr()})

    def _next_sequence(self, account_id: str) -> int:
        self._sequences[account_id] += 1
        return self._sequences[account_id]

    async def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        if self._http is None:
            raise RuntimeError("enter the network first: `async with RemoteNetwork(url) as …`")
        async with self._http.request(method, self._url + path, **arguments) as response:
            answer: dict[str, Any] = await response.json(content_type=None)
            if response.status != 200:
                raise RemoteRefusal(response.status, answer)
            return answer

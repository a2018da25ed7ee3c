"""`POST /transactions` and the friendbot."""

import asyncio
from collections.abc import Callable
from typing import Final

from aiohttp import web
from stellar_sdk import CreateAccount, StrKey, xdr

from paywatch.sim import problems, records
from paywatch.sim.envelopes import MalformedEnvelope, read_envelope, root_keypair
from paywatch.sim.ledger import Ledger, TxRefused
from paywatch.sim.pages import View
from paywatch.sim.results import result_codes
from paywatch.sim.signals import Signal
from paywatch.sim.wallet import Wallet

FRIENDBOT_LUMENS: Final = "10000"


class Submitter:
    """Takes transactions and answers when their ledger has closed, as Horizon does.

    Args:
        view: of the ledger where they go.
        changed: notified whenever a ledger closes, and when a transaction waits for the next.
        base_url: gives the address that the server believes it has.
        timeout_s: how long an answer may wait for a ledger.
    """

    def __init__(
        self, view: View, changed: Signal, base_url: Callable[[], str], timeout_s: float
    ) -> None:
        self._view = view
        self._changed = changed
        self._base_url = base_url
        self._timeout_s = timeout_s

    @property
    def _ledger(self) -> Ledger:
        return self._view.ledger

    def routes(self) -> list[web.RouteDef]:
        """The paths that change something."""
        return [
            web.post("/transactions", self._submit),
            web.get("/friendbot", self._friendbot),
            web.post("/friendbot", self._friendbot),
        ]

    async def _submit(self, request: web.Request) -> web.Response:
        form = await request.post()
        envelope = form.get("tx", "")
        return await self.answer(envelope if isinstance(envelope, str) else "")

    async def answer(self, envelope_xdr: str) -> web.Response:
        """Submit an envelope and wait for its ledger.

        Raises:
            Problem: malformed, refused, failed, or in no ledger in time.
        """
        try:
            tx_hash = self._known(envelope_xdr) or self._ledger.submit(envelope_xdr).hash.hex()
        except MalformedEnvelope:
            raise problems.malformed_tx(envelope_xdr) from None
        except TxRefused as refused:
            raise _failed(envelope_xdr, refused.result) from None
        self._changed.notify()
        since = self._ledger.latest.sequence
        try:
            async with asyncio.timeout(self._timeout_s):
                result = await self._changed.wait_for(lambda: self._outcome(tx_hash, since))
        except TimeoutError:
            raise problems.submission_timeout(tx_hash, envelope_xdr) from None
        if result.result.code not in (0, 1):  # success, alone or inside a fee bump
            raise _failed(envelope_xdr, result)
        tx = self._ledger.history.tx(tx_hash)
        assert tx is not None, "its result was read from it"  # noqa: S101 - for the type checker
        return problems.hal(records.tx_record(tx, self._base_url()))

    def _known(self, envelope_xdr: str) -> str | None:
        """The hash of a transaction that is in the ledger already: it is answered again."""
        tx_hash = read_envelope(envelope_xdr, self._ledger.passphrase).hash.hex()
        return tx_hash if self._ledger.history.tx(tx_hash) else None

    def _outcome(self, tx_hash: str, since: int) -> xdr.TransactionResult | None:
        tx = self._ledger.history.tx(tx_hash)
        if tx is not None:
            return xdr.TransactionResult.from_xdr(tx.result_xdr)
        newer = self._ledger.latest.sequence - since
        for closed in self._ledger.history.ledgers[-newer:] if newer else ():
            refused: xdr.TransactionResult | None = closed.refused.get(tx_hash)
            if refused is not None:
                return refused
        return None

    async def _friendbot(self, request: web.Request) -> web.Response:
        form = await request.post()
        address = str(request.query.get("addr") or form.get("addr") or "")
        if not StrKey.is_valid_ed25519_public_key(address):
            raise problems.bad_request("addr", "must be a G… address")
        root = root_keypair(self._ledger.passphrase)
        friendbot = Wallet(root, self._ledger.passphrase, self._ledger.next_sequence)
        gift = friendbot.build([CreateAccount(address, FRIENDBOT_LUMENS)])
        return await self.answer(gift.to_xdr())


def _failed(envelope_xdr: str, result: xdr.TransactionResult) -> problems.Problem:
    return problems.failed_tx(envelope_xdr, result.to_xdr(), result_codes(result))

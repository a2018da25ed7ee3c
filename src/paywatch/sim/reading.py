"""Horizon's GET endpoints."""

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web
from stellar_sdk import StrKey

from paywatch.sim import problems, records
from paywatch.sim.history import AppliedTx, History, between
from paywatch.sim.pages import Listing, PageQuery, View, hal_page
from paywatch.sim.rootdoc import RootFacts, root_document
from paywatch.sim.state import AccountKey

_HASH: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]{1,19}", re.ASCII)

# Serves a list, as a page or as a stream.
ServeList = Callable[[web.Request, Listing], Awaitable[web.StreamResponse]]


class HorizonReader:
    """Answers what is read of one view of the ledger.

    Args:
        view: what this instance shows.
        serve_list: answers a request by a page or a stream of a list.
        base_url: gives the address that the server believes it has.
    """

    def __init__(self, view: View, serve_list: ServeList, base_url: Callable[[], str]) -> None:
        self._view = view
        self._serve_list = serve_list
        self._base_url = base_url

    def routes(self) -> list[web.RouteDef]:
        """All paths that can be read."""
        found = [
            web.get("/", self._root),
            web.get("/accounts/{account_id}", self._account),
            web.get("/operations/{op_id}", self._operation),
            web.get("/operations/{op_id}/effects", self._effects_of_operation),
            web.get("/transactions/{tx_id}", self._transaction),
            web.get("/ledgers", self._ledgers),
            web.get("/ledgers/{ledger_id}", self._ledger),
        ]
        for name in ("operations", "payments", "effects"):
            found.append(web.get(f"/{name}", self._list_of_all(name)))
            found.append(web.get(f"/accounts/{{account_id}}/{name}", self._list_of_account(name)))
            found.append(web.get(f"/transactions/{{tx_id}}/{name}", self._list_of_tx(name)))
        found.append(web.get("/transactions", self._list_of_all("transactions")))
        of_account = self._list_of_account("transactions")
        found.append(web.get("/accounts/{account_id}/transactions", of_account))
        return found

    @property
    def _history(self) -> History:
        return self._view.ledger.history

    async def _root(self, _: web.Request) -> web.Response:
        facts = RootFacts(
            passphrase=self._view.ledger.passphrase,
            latest=self._view.latest,
            elder_ledger=self._view.elder,
            core_latest_ledger=self._view.ledger.latest.sequence,
        )
        return problems.hal(root_document(facts, self._base_url()))

    async def _account(self, request: web.Request) -> web.Response:
        account_id, state = _account_id(request), self._view.ledger.state
        modified = state.modified(AccountKey(account_id))
        ledgers = self._history.ledgers
        modified_at = ledgers[max(0, modified - ledgers[0].sequence)].closed_at
        try:
            found = records.account_record(account_id, state, self._base_url(), modified_at)
        except LookupError:
            raise problems.not_found() from None
        return problems.hal(found, {"Latest-Ledger": str(self._view.latest.sequence)})

    async def _operation(self, request: web.Request) -> web.Response:
        op_id = _number(request, "op_id", "Operation ID must be an integer higher than 0")
        if op_id >> 32 < self._view.elder:
            raise problems.before_history()
        listing = self._operation_list(lambda: self._history.operations, always_failed=True)
        query = PageQuery.parse({"cursor": str(op_id - 1), "limit": "1"}, self._view)
        found = listing.page(query, self._view)
        if not found or found[0][0] != str(op_id):
            raise problems.not_found()
        return problems.hal(found[0][1])

    async def _transaction(self, request: web.Request) -> web.Response:
        tx = self._tx(request)
        asked_for = request.match_info["tx_id"]
        return problems.hal(records.tx_record(tx, self._base_url(), asked_for))

    async def _ledger(self, request: web.Request) -> web.Response:
        sequence = _number(request, "ledger_id", "Ledger ID must be an integer higher than 0")
        if sequence < self._view.elder:
            raise problems.before_history()
        if sequence > self._view.latest.sequence:
            raise problems.not_found()
        ledgers = self._history.ledgers
        found = ledgers[sequence - ledgers[0].sequence]
        if not self._view.shows(found):
            raise problems.not_found()
        return problems.hal(records.ledger_record(found, self._base_url()))

    async def _ledgers(self, request: web.Request) -> web.StreamResponse:
        listing = Listing(
            rows=lambda: self._history.ledgers,
            write=lambda row, _: records.ledger_record(row, self._base_url()),
            token=lambda row: str(row.id),
        )
        return await self._serve_list(request, listing)

    async def _effects_of_operation(self, request: web.Request) -> web.StreamResponse:
        op_id = _number(request, "op_id", "Operation ID must be an integer higher than 0")
        rows = self._history.effects
        listing = self._effect_list(lambda: [e for e in rows if e.operation_id == op_id])
        return await self._serve_list(request, listing)

    def _list_of_all(self, name: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def serve(request: web.Request) -> web.StreamResponse:
            return await self._serve_list(
                request, self._listing(name, getattr(self._history, name))
            )

        return serve

    def _list_of_account(self, name: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def serve(request: web.Request) -> web.StreamResponse:
            account_id = _account_id(request)
            low, high = self._view.bounds
            known = between(self._history.transactions_of(account_id), low, high)
            if not any(map(self._view.shows, known)):
                raise problems.not_found()  # no such account in the history that is kept
            rows = getattr(self._history, f"{name}_of")
            # The list itself is looked up at each page: an account's first row makes a new one.
            return await self._serve_list(request, self._listing(name, lambda: rows(account_id)))

        return serve

    def _list_of_tx(self, name: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def serve(request: web.Request) -> web.StreamResponse:
            operations = self._history.operations_in(self._tx(request))
            if name == "effects":
                effects = [effect for op in operations for effect in op.effects]
                return await self._serve_list(request, self._effect_list(lambda: effects))
            rows = [op for op in operations if op.is_payment or name == "operations"]
            # Who asks for one transaction knows how it ended: failed ones are always shown.
            listing = self._operation_list(lambda: rows, always_failed=True)
            return await self._serve_list(request, listing)

        return serve

    def _listing(self, name: str, rows: Any) -> Listing:
        get = rows if callable(rows) else lambda: rows
        if name == "effects":
            return self._effect_list(get)
        if name == "transactions":
            return Listing(
                rows=get,
                write=lambda row, _: records.tx_record(row, self._base_url()),
                token=lambda row: str(row.id),
                wanted=lambda row, failed: failed or row.successful,
            )
        return self._operation_list(get, always_failed=False)

    def _operation_list(self, rows: Callable[[], Any], *, always_failed: bool) -> Listing:
        return Listing(
            rows=rows,
            write=lambda row, join: records.operation_record(row, self._base_url(), join=join),
            token=lambda row: str(row.id),
            wanted=lambda row, failed: always_failed or failed or row.tx.successful,
        )

    def _effect_list(self, rows: Callable[[], Any]) -> Listing:
        return Listing(
            rows=rows,
            write=lambda row, _: records.effect_record(row, self._base_url()),
            token=lambda row: f"{row.operation_id}-{row.order}",
            pairs=True,
        )

    def _tx(self, request: web.Request) -> AppliedTx:
        tx_hash = request.match_info["tx_id"]
        if not _HASH.fullmatch(tx_hash):
            reason = "Transaction hash must be a hex-encoded, lowercase SHA-256 hash"
            raise problems.bad_request("tx_id", reason)
        tx = self._history.tx(tx_hash)
        if tx is None or not self._view.elder <= tx.ledger <= self._view.latest.sequence:
            raise problems.not_found()
        if not self._view.shows(tx):
            raise problems.not_found()
        return tx


def page_response(
    request: web.Request, found: list[tuple[str, records.JSON]], query: PageQuery, base_url: str
) -> web.Response:
    """A page of a list, with links to its neighbours."""
    params = dict(request.query)
    return problems.hal(hal_page(found, query, base_url + request.path, params))


def _account_id(request: web.Request) -> str:
    account_id = request.match_info["account_id"]
    if not StrKey.is_valid_ed25519_public_key(account_id):
        reason = "Account ID must start with `G` and contain 56 alphanum characters"
        raise problems.bad_request("account_id", reason)
    return account_id


def _number(request: web.Request, name: str, reason: str) -> int:
    text = request.match_info[name]
    if not _NUMBER.fullmatch(text) or not 0 < int(text) < 2**63:
        raise problems.bad_request(name, reason)
    return int(text)

"""Checkout: merchants and their sessions, made and read."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from stellar_sdk import StrKey

from paywatch.config import holds_seed
from paywatch.domain.checkout import CheckoutSession, SessionStatus
from paywatch.domain.ledger import MAX_STROOPS, Asset, Memo, MemoType, Position, parse_stroops
from paywatch.domain.policy import Policy
from paywatch.errors import InvalidInput, NotFound
from paywatch.store import checkout as checkout_store
from paywatch.store import cursors, merchants
from paywatch.store.checkout import SessionView
from paywatch.store.cursors import Cursor, live_stream
from paywatch.store.merchants import Endpoint, WatchedAccount

SHORTEST: Final = timedelta(seconds=1)
LONGEST: Final = timedelta(days=365)
_MEMO_KEY: Final = "uq_checkout_sessions_account_memo_type_memo"


class TipSource(Protocol):
    """Knows where the ledger stands."""

    async def tip(self) -> Position:
        """Give the position after the latest ledger, as a number."""
        ...


class SecretSealer(Protocol):
    """Encrypts webhook secrets at rest."""

    def seal(self, secret: str, endpoint_id: UUID) -> bytes:
        """Encrypt a secret for one endpoint."""
        ...


@dataclass(frozen=True, slots=True)
class NewMerchant:
    """What a merchant is registered with."""

    merchant_id: UUID
    name: str
    account: str
    start_position: Position
    endpoint_id: UUID | None
    webhook_url: str | None
    webhook_secret: str | None = field(repr=False)  # shown once; stored sealed


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """What a merchant asks for, as given: strings from a command line or an API.

    Without `memo` paywatch chooses one: the session's 63-bit number as id or as text, or 32 random
    bytes as hash.
    """

    merchant_id: UUID
    amount: str
    asset: str
    memo_type: str = MemoType.ID
    memo: str | None = None
    expires_in: timedelta = timedelta(minutes=30)
    reference: str | None = None


@dataclass(frozen=True)
class Checkout:
    """Makes and reads merchants and sessions.

    Attributes:
        token_bytes: the source of randomness for ids and memos, such as `secrets.token_bytes`.
        new_secret: makes a webhook secret.
        check_url: refuses a URL that webhooks may not go to.
    """

    engine: AsyncEngine
    clock: Callable[[], datetime]
    token_bytes: Callable[[int], bytes]
    new_secret: Callable[[], str]
    check_url: Callable[[str], object]
    vault: SecretSealer
    source: TipSource

    @property
    def _engine(self) -> AsyncEngine:
        """One row each, guarded by its keys: SERIALIZABLE would only fail beside a settlement."""
        return self.engine.execution_options(isolation_level="READ COMMITTED")

    @property
    def _snapshot(self) -> AsyncEngine:
        """Several reads of one moment."""
        return self.engine.execution_options(isolation_level="REPEATABLE READ")

    async def create_merchant(
        self, name: str, account: str, webhook_url: str | None = None
    ) -> NewMerchant:
        """Register a merchant with the account to watch, from the ledger's present tip on.

        Raises:
            InvalidInput: the name or the account is not usable, or the account is watched already.
            WebhookRefused: webhooks may not go to that URL.
            HorizonError: the tip could not be read.
        """
        _check_merchant(name, account)
        if webhook_url is not None:
            self.check_url(webhook_url)
        now = self.clock()
        merchant = NewMerchant(
            merchant_id=self._new_id(now),
            name=name.strip(),
            account=account,
            # A number, read once: `now` would be another place at each use.
            start_position=await self.source.tip(),
            endpoint_id=self._new_id(now) if webhook_url else None,
            webhook_url=webhook_url,
            webhook_secret=self.new_secret() if webhook_url else None,
        )
        with _taken("pk_accounts", "account", "is watched for a merchant already"):
            await self._write_merchant(merchant, now)
        return merchant

    async def _write_merchant(self, merchant: NewMerchant, now: datetime) -> None:
        account = WatchedAccount(merchant.account, merchant.merchant_id, merchant.start_position)
        cursor = Cursor(live_stream(account.account), account.account, account.start_position)
        async with self._engine.begin() as conn:
            await merchants.insert_merchant(conn, merchant.merchant_id, merchant.name, now)
            await merchants.insert_account(conn, account, now)
            await cursors.open_stream(conn, cursor, now)
            if merchant.endpoint_id and merchant.webhook_url and merchant.webhook_secret:
                sealed = self.vault.seal(merchant.webhook_secret, merchant.endpoint_id)
                endpoint = Endpoint(merchant.endpoint_id, merchant.webhook_url, sealed)
                await merchants.insert_endpoint(conn, merchant.merchant_id, endpoint, now)

    async def read_policy(self, merchant_id: UUID) -> Policy:
        """Read what a merchant tolerates.

        Raises:
            NotFound: no such merchant.
        """
        async with self._engine.begin() as conn:
            return await self._policy(conn, merchant_id)

    async def change_policy(self, merchant_id: UUID, change: Callable[[Policy], Policy]) -> Policy:
        """Change what a merchant tolerates; sessions that are open keep their terms.

        Raises:
            NotFound: no such merchant.
            InvalidInput: raised by `change`: not a policy.
        """
        async with self._engine.begin() as conn:
            policy = change(await self._policy(conn, merchant_id))
            await merchants.write_policy(conn, merchant_id, policy)
        return policy

    async def _policy(self, conn: AsyncConnection, merchant_id: UUID) -> Policy:
        policy = await merchants.read_policy(conn, merchant_id)
        if policy is None:
            raise NotFound(f"there is no merchant {merchant_id}")
        return policy

    async def create_session(self, request: SessionRequest) -> CheckoutSession:
        """Open a checkout session on the merchant's account.

        Raises:
            InvalidInput: a field is not usable, or another session has the memo.
            NotFound: no such merchant.
        """
        now = self.clock()
        amount, asset = parse_stroops(request.amount), Asset.parse(request.asset)
        _check_session(request, amount, asset)
        muxed_id = int.from_bytes(self.token_bytes(8), "big") >> 1
        memo = self._memo(request, muxed_id)
        async with self._engine.begin() as conn:
            account = await merchants.account_of(conn, request.merchant_id)
            if account is None:
                raise NotFound(f"there is no merchant {request.merchant_id}")
            cursor = await cursors.read_followed(conn, account.account)
            if cursor is None:
                raise NotFound(f"{account.account} is not watched: no payment would be seen")
            policy = await self._policy(conn, request.merchant_id)
            expires_at = now + request.expires_in
            session = CheckoutSession(
                id=self._new_id(now),
                merchant_id=request.merchant_id,
                account=account.account,
                memo=memo,
                muxed_id=muxed_id,
                asset=asset,
                amount=amount,
                received=0,
                status=SessionStatus.PENDING,
                expires_at=expires_at,
                opened_position=cursor.position,
                terms=policy.terms(amount, expires_at),
                reference=request.reference,
            )
            with _taken(_MEMO_KEY, "memo", "another session on this account has it"):
                await checkout_store.insert(conn, session, now, cursor.history)
        return session

    async def read_session(self, session_id: UUID) -> SessionView:
        """Read a session with its payments, credits and events.

        Raises:
            NotFound: no such session.
        """
        async with self._snapshot.begin() as conn:
            view = await checkout_store.read(conn, session_id)
        if view is None:
            raise NotFound(f"there is no session {session_id}")
        return view

    async def list_sessions(
        self, status: SessionStatus | None = None, limit: int = 100
    ) -> list[CheckoutSession]:
        """Read the newest sessions, of one status or of all."""
        async with self._snapshot.begin() as conn:
            return await checkout_store.read_list(conn, status, limit)

    def _memo(self, request: SessionRequest, number: int) -> Memo:
        if request.memo is not None:
            return Memo.parse(request.memo_type, request.memo)
        chosen = self.token_bytes(32).hex() if request.memo_type == MemoType.HASH else str(number)
        return Memo.parse(request.memo_type, chosen)

    def _new_id(self, now: datetime) -> UUID:
        """Make a UUIDv7 (RFC 9562): random, yet new rows lie together in the indexes."""
        milliseconds = int(now.timestamp() * 1000)
        value = (milliseconds << 80) | int.from_bytes(self.token_bytes(10), "big")
        value = value & ~(0xF << 76) | (7 << 76)  # version
        value = value & ~(0x3 << 62) | (2 << 62)  # variant
        return UUID(int=value)


def _refuse_seed(field: str, text: str) -> None:
    """Whoever pastes a seed into a field of text shows it in logs, listings and webhooks."""
    if holds_seed(text):
        raise InvalidInput(
            field,
            "holds a Stellar secret seed (S…): paywatch needs none; move the money of that account"
            " to another, for it has been seen",
        )


def _check_merchant(name: str, account: str) -> None:
    _refuse_seed("name", name)
    if not 1 <= len(name.strip()) <= 200 or not _is_storable(name):
        raise InvalidInput("name", "must be 1 to 200 characters of valid Unicode, without NUL")
    if StrKey.is_valid_ed25519_secret_seed(account):
        raise InvalidInput("account", "is a secret seed: paywatch needs the public G… address only")
    if account.startswith("M"):
        raise InvalidInput("account", "is a muxed address: give the G… address that it stands for")
    if not StrKey.is_valid_ed25519_public_key(account):
        raise InvalidInput("account", "must be a Stellar G… address")


def _check_session(request: SessionRequest, amount: int, asset: Asset) -> None:
    if not 0 < amount <= MAX_STROOPS:
        raise InvalidInput("amount", "must be above 0 and at most 922337203685.4775807")
    if asset.issuer and not StrKey.is_valid_ed25519_public_key(asset.issuer):
        raise InvalidInput("asset", "the issuer is not a Stellar G… address")
    if not SHORTEST <= request.expires_in <= LONGEST:
        raise InvalidInput("expires_in", "must be between 1 second and 365 days")
    reference = request.reference or ""
    _refuse_seed("reference", reference)
    if len(reference) > 200 or not _is_storable(reference):
        raise InvalidInput("reference", "must be at most 200 characters of Unicode, without NUL")


def _is_storable(text: str) -> bool:
    """Whether PostgreSQL takes it: no NUL, and no half of a surrogate pair."""
    return not re.search("[\0\ud800-\udfff]", text)


@contextmanager
def _taken(key: str, field: str, problem: str) -> Iterator[None]:
    """Say which field broke a unique key; any other constraint is a bug of ours and says so."""
    try:
        yield
    except IntegrityError as error:
        if key not in str(error.orig):
            raise
        raise InvalidInput(field, problem) from error

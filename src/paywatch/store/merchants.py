"""Merchants, their watched accounts and their endpoints."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from paywatch.domain.ledger import Position
from paywatch.domain.policy import Policy


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a merchant's webhooks go; the secret is sealed."""

    id: UUID
    url: str
    sealed_secret: bytes


@dataclass(frozen=True, slots=True)
class WatchedAccount:
    """A Stellar account that is watched for a merchant, since `start_position`.

    `by_network` says whose position counts for it: the network-wide stream's, or its own cursor's.
    """

    account: str
    merchant_id: UUID
    start_position: Position
    by_network: bool = False


_INSERT_MERCHANT = text("INSERT INTO merchants (id, name, created_at) VALUES (:id, :name, :now)")

_INSERT_ACCOUNT = text(
    """
INSERT INTO accounts (account, merchant_id, start_position, created_at)
VALUES (:account, :merchant_id, :start_position, :now)"""
)

_INSERT_ENDPOINT = text(
    """
INSERT INTO endpoints (id, merchant_id, url, sealed_secret, created_at)
VALUES (:id, :merchant_id, :url, :sealed_secret, :now)"""
)

_POLICY = "tolerance_bps, late_grace_s, text_for_id"

_READ_POLICY = text(f"SELECT {_POLICY} FROM merchants WHERE id = :id")

_WRITE_POLICY = text(
    """
UPDATE merchants SET tolerance_bps = :tolerance_bps, late_grace_s = :late_grace_s,
       text_for_id = :text_for_id
 WHERE id = :id"""
)

_ACCOUNTS = "SELECT account, merchant_id, start_position, followed_by FROM accounts"
_ALL_ACCOUNTS = text(f"{_ACCOUNTS} ORDER BY account")
_ACCOUNT_OF = text(f"{_ACCOUNTS} WHERE merchant_id = :merchant_id ORDER BY account LIMIT 1")


async def insert_merchant(conn: AsyncConnection, id_: UUID, name: str, now: datetime) -> None:
    """Write a merchant."""
    await conn.execute(_INSERT_MERCHANT, {"id": id_, "name": name, "now": now})


async def insert_account(conn: AsyncConnection, account: WatchedAccount, now: datetime) -> None:
    """Write a watched account.

    Raises:
        sqlalchemy.exc.IntegrityError: it is watched already.
    """
    await conn.execute(
        _INSERT_ACCOUNT,
        {
            "account": account.account,
            "merchant_id": account.merchant_id,
            "start_position": int(account.start_position),
            "now": now,
        },
    )


async def insert_endpoint(
    conn: AsyncConnection, merchant_id: UUID, endpoint: Endpoint, now: datetime
) -> None:
    """Write a merchant's endpoint."""
    await conn.execute(
        _INSERT_ENDPOINT,
        {
            "id": endpoint.id,
            "merchant_id": merchant_id,
            "url": endpoint.url,
            "sealed_secret": endpoint.sealed_secret,
            "now": now,
        },
    )


async def read_policy(conn: AsyncConnection, merchant_id: UUID) -> Policy | None:
    """Read a merchant's policy; None if there is no such merchant."""
    row = (await conn.execute(_READ_POLICY, {"id": merchant_id})).one_or_none()
    if row is None:
        return None
    grace = None if row.late_grace_s is None else timedelta(seconds=row.late_grace_s)
    return Policy(row.tolerance_bps, grace, row.text_for_id)


async def write_policy(conn: AsyncConnection, merchant_id: UUID, policy: Policy) -> None:
    """Change a merchant's policy, for the sessions opened from now on."""
    grace = policy.late_grace
    await conn.execute(
        _WRITE_POLICY,
        {
            "id": merchant_id,
            "tolerance_bps": policy.tolerance_bps,
            "late_grace_s": None if grace is None else int(grace.total_seconds()),
            "text_for_id": policy.text_for_id,
        },
    )


async def read_accounts(conn: AsyncConnection) -> list[WatchedAccount]:
    """Read all watched accounts, in order."""
    return [_account(row) for row in await conn.execute(_ALL_ACCOUNTS)]


async def account_of(conn: AsyncConnection, merchant_id: UUID) -> WatchedAccount | None:
    """Read the account that a merchant is paid on."""
    row = (await conn.execute(_ACCOUNT_OF, {"merchant_id": merchant_id})).one_or_none()
    return None if row is None else _account(row)


def _account(row: Row[Any]) -> WatchedAccount:
    by_network = row.followed_by == "network"
    return WatchedAccount(row.account, row.merchant_id, Position(row.start_position), by_network)

"""Doctor: look at everything that paywatch needs, and say what is wrong and what to do.

The judgements are pure; the looking is one short transaction and one request to each Horizon.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from paywatch.errors import HistoryGap, HorizonError, NetworkReset, SealError, WrongNetwork
from paywatch.store import checkup, cursors, pooler
from paywatch.store.cursors import Cursor

OLDEST_VERSION: Final = 15
FEWEST_CONNECTIONS: Final = 20
LARGEST_LAG: Final = timedelta(seconds=60)
LARGEST_SKEW: Final = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Finding:
    """How one part is; `remedy` says what to do where it is not well."""

    part: str
    well: bool
    message: str
    remedy: str = ""

    def document(self) -> dict[str, object]:
        """Describe it as a JSON document."""
        return asdict(self)


class Root(Protocol):
    """What a Horizon says of itself."""

    @property
    def latest(self) -> int:
        """Its latest ledger."""
        ...

    @property
    def closed_at(self) -> datetime:
        """When that closed."""
        ...

    def require_network(self, passphrase: str) -> None:
        """Raise WrongNetwork unless it serves that network."""
        ...

    def require_history(self, after: Any) -> None:
        """Raise HistoryGap or NetworkReset if a cursor cannot go on there."""
        ...


class RootSource(Protocol):
    """Reads a Horizon's root document."""

    async def root(self) -> Root:
        """Read it; raises HorizonError."""
        ...


class SecretOpener(Protocol):
    """Opens sealed webhook secrets."""

    def open(self, sealed: bytes, endpoint_id: UUID) -> str:
        """Open one; raises SealError."""
        ...


async def examine_server(engine: AsyncEngine) -> list[Finding]:
    """Look at the database server; raises what the database raises."""
    async with engine.connect() as conn:
        findings = list(judge_server(await checkup.read_server(conn)))
    if await pooler.shares_connections(engine):
        findings.append(_wrong("database", pooler.PROBLEM, pooler.REMEDY))
    return findings


def judge_server(server: Row[Any]) -> Iterable[Finding]:
    """Judge the server's version and settings."""
    if server.version_num < OLDEST_VERSION * 10_000:
        yield _wrong(
            "database",
            f"PostgreSQL {server.version} is too old",
            f"use PostgreSQL {OLDEST_VERSION} or newer",
        )
    else:
        yield _well("database", f"PostgreSQL {server.version} answers")
    if server.read_only:
        yield _wrong(
            "database",
            "it is read-only (a standby, or default_transaction_read_only)",
            "let PAYWATCH_DATABASE_URL name the primary",
        )
    if server.encoding != "UTF8":
        yield _wrong(
            "database",
            f"its encoding is {server.encoding}",
            "make a database with ENCODING 'UTF8' and move there",
        )
    for name in ("fsync", "full_page_writes"):
        if getattr(server, name) != "on":
            yield _wrong(
                "database",
                f"{name} is off: a power cut can lose settled payments",
                f"set {name} = on in postgresql.conf",
            )
    if server.max_connections < FEWEST_CONNECTIONS:
        yield _wrong(
            "database",
            f"max_connections is {server.max_connections}",
            f"set max_connections to at least {FEWEST_CONNECTIONS}",
        )


async def examine_endpoints(engine: AsyncEngine, vault: SecretOpener) -> list[Finding]:
    """Look at the merchants' endpoints and whether our key opens their secrets."""
    async with engine.connect() as conn:
        endpoints = await checkup.read_endpoints(conn)
    return list(judge_endpoints(endpoints, vault))


def judge_endpoints(endpoints: Sequence[Row[Any]], vault: SecretOpener) -> Iterable[Finding]:
    """Judge endpoints; each kind of trouble is told once, with an example."""
    disabled = [row for row in endpoints if row.disabled_at is not None]
    if disabled:
        row = disabled[0]
        yield _wrong(
            "webhooks",
            f"disabled: {len(disabled)} of {_count(endpoints, 'endpoint')}; {row.url}: "
            f"{row.disabled_reason}",
            "ask the merchant to mend it",
        )
    else:
        yield _well("webhooks", f"{_count(endpoints, 'endpoint')}, none disabled")
    sealed = [error for row in endpoints if (error := _opening(row, vault))]
    if sealed:
        yield _wrong(
            "secret key",
            f"of {_count(endpoints, 'webhook secret')} {len(sealed)} cannot be opened: {sealed[0]}",
            "put the PAYWATCH_SECRET_KEY back that they were sealed with",
        )
    else:
        yield _well("secret key", f"opens {_count(endpoints, 'webhook secret')}")


def _opening(row: Row[Any], vault: SecretOpener) -> str | None:
    try:
        vault.open(row.sealed_secret, row.id)
    except SealError as error:
        return str(error)
    return None


async def examine_horizons(
    sources: Mapping[str, RootSource], engine: AsyncEngine | None, passphrase: str, now: datetime
) -> list[Finding]:
    """Look at each Horizon, its clock against ours, and whether every stream can go on somewhere.

    Args:
        sources: by name.
        engine: where the streams' cursors are; None if there are none yet.
        passphrase: the network that each must serve.
        now: our clock.
    """
    asked = await asyncio.gather(*(_read_root(source) for source in sources.values()))
    roots: dict[str, Root] = {}
    findings: list[Finding] = []
    for name, answer in zip(sources, asked, strict=True):
        if isinstance(answer, HorizonError):
            remedy = "check PAYWATCH_HORIZON_URL and the network"
            findings.append(_wrong("horizon", f"{name} cannot be read: {answer}", remedy))
            continue
        findings += judge_root(name, answer, passphrase, now)
        roots[name] = answer
    if engine is not None and roots:
        async with engine.connect() as conn:
            findings += judge_streams(roots, await cursors.read_all_followed(conn))
    return findings


async def _read_root(source: RootSource) -> Root | HorizonError:
    try:
        return await source.root()
    except HorizonError as error:
        return error


def judge_root(name: str, root: Root, passphrase: str, now: datetime) -> Iterable[Finding]:
    """Judge which network it is, how far behind, and whose clock is wrong."""
    try:
        root.require_network(passphrase)
    except WrongNetwork as error:
        yield _wrong("horizon", f"{name}: {error}", "correct one of these two settings")
        return
    lag = now - root.closed_at
    if lag < -LARGEST_SKEW:
        yield _wrong(
            "clock",
            f"ours is {-lag.total_seconds():.0f} s behind the ledger's",
            "synchronise this machine's clock (NTP)",
        )
    elif lag > LARGEST_LAG:
        yield _wrong(
            "horizon",
            f"the latest ledger of {name}, {root.latest}, is {lag.total_seconds():.0f} s old",
            "if this machine's clock is right, that Horizon lags: wait, or use another one",
        )
    else:
        yield _well(
            "horizon", f"{name} is at ledger {root.latest}, {lag.total_seconds():.0f} s old"
        )
        yield _well("clock", "agrees with the ledger's")


def judge_streams(roots: Mapping[str, Root], streams: Sequence[Cursor]) -> Iterable[Finding]:
    """Judge whether a Horizon still has what each stream must read next."""
    refusals = {name: _refused(root, streams) for name, root in roots.items()}
    stopped = [cursor for cursor in streams if all(cursor.stream in r for r in refusals.values())]
    if stopped:
        first = stopped[0].stream
        why = "; ".join(f"{name}: {refused[first]}" for name, refused in refusals.items())
        yield _wrong(
            "streams",
            f"of {_count(streams, 'stream')} {len(stopped)} cannot go on; {first}: {why}",
            "use a Horizon that keeps enough history of the same network",
        )
        return
    for name, refused in refusals.items():
        all_of = f"{_count(streams, 'stream')} can go on at {name}"
        yield _well("streams", f"{all_of}, but for {len(refused)}" if refused else all_of)


def _refused(root: Root, streams: Sequence[Cursor]) -> dict[str, str]:
    """Why streams cannot go on at a Horizon, by stream."""
    found = {}
    for cursor in streams:
        try:
            root.require_history(cursor.position)
        except (HistoryGap, NetworkReset) as error:
            found[cursor.stream] = str(error)
    return found


def _count(things: Sequence[object], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def _well(part: str, message: str) -> Finding:
    return Finding(part, well=True, message=message)


def _wrong(part: str, message: str, remedy: str) -> Finding:
    return Finding(part, well=False, message=message, remedy=remedy)

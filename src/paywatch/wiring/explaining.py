"""Explaining captured records: Horizon's forms, and a database if there is one already."""

from collections.abc import Collection
from dataclasses import dataclass

from paywatch.config import Settings
from paywatch.domain.ledger import LedgerRecord
from paywatch.errors import InvalidInput, PaywatchError, RecordError
from paywatch.horizon.capture import MAX_CAPTURE_BYTES, read_capture
from paywatch.horizon.reasons import why_no_credit
from paywatch.horizon.records import parse_record
from paywatch.service.explain import Explained, Raw, explain
from paywatch.wiring.database import embedded_directory, open_database

__all__ = ["MAX_CAPTURE_BYTES", "Explanation", "explain_capture"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a capture holds; `database` says which one was looked at, or why none was."""

    records: list[Explained]
    consulted: bool
    database: str


@dataclass(frozen=True, slots=True)
class _Reader:
    """Horizon's records, for some accounts or for all."""

    accounts: Collection[str] | None

    def parse(self, raw: Raw) -> LedgerRecord | None:
        return parse_record(raw, self.accounts)

    def why_no_credit(self, raw: Raw) -> str:
        return why_no_credit(raw, self.accounts)


async def explain_capture(
    settings: Settings, raw: bytes, accounts: Collection[str] | None
) -> Explanation:
    """Explain a record, a list, a page or a captured stream.

    Args:
        settings: name the database; it is looked at if there is one, never made or migrated.
        raw: the bytes as saved.
        accounts: whose credits are asked for; None for everybody's.

    Raises:
        RecordError: the bytes are none of these.
    """
    try:
        raws = read_capture(raw)
    except InvalidInput as error:
        raise RecordError(f"the input cannot be read: {error}") from error
    reader = _Reader(accounts)
    if settings.database_url is None and not (embedded_directory(settings) / "PG_VERSION").exists():
        why = "no PAYWATCH_DATABASE_URL is set and there is no embedded database yet"
        return Explanation(await explain(raws, reader, None), consulted=False, database=why)
    try:
        async with open_database(settings) as database:
            records = await explain(raws, reader, database.engine)
            return Explanation(records, consulted=True, database=database.engine.url.database or "")
    except PaywatchError as error:
        return Explanation(await explain(raws, reader, None), consulted=False, database=str(error))

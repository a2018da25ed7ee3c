"""Any document as a page of payments: a batch in ledger order that misses nothing, or a refusal."""

from collections.abc import Mapping
from typing import Any, Final

from fuzz.records import WATCHED
from fuzz.target import Target, dumped, real_records
from paywatch.domain.ledger import Position
from paywatch.errors import HorizonUnavailable
from paywatch.horizon.documents import PAGE_LIMIT, Root, read_records
from paywatch.horizon.fields import read_time
from paywatch.horizon.pages import Page
from paywatch.horizon.strict_json import parse_object
from paywatch.horizon.transport import MAX_PAGE_BYTES

_NOW: Final = read_time({"at": "2026-11-21T12:00:00Z"}, "at")
ROOT: Final = Root("Test SDF Network ; September 2015", 60_000_000, _NOW, 1)
_BEGIN: Final = Position(0)


def run(raw: bytes) -> None:
    """Read a page from the beginning of the ledger."""
    try:
        records = read_records(parse_object(raw, MAX_PAGE_BYTES))
        page = Page.of(records, _BEGIN, ROOT)
    except HorizonUnavailable as error:
        str(error).encode()
        return
    _check(page, records)


def _check(page: Page, records: list[Mapping[str, Any]]) -> None:
    batch = page.batch(WATCHED)
    places = [record.operation_id for record in batch.records]
    assert places == sorted(set(places))
    assert all(batch.after < place <= batch.upto for place in places)
    assert batch.read == len(records) <= PAGE_LIMIT
    if records:
        assert batch.upto == max(position for position, _ in page.records)
    else:
        assert batch.upto == ROOT.tip
    known = {position for position, _ in page.records}
    assert page.batch(WATCHED, known).read == 0, "what is known is read again"


def _seeds() -> tuple[bytes, ...]:
    real = sorted(real_records("[0-9]*-joined.json"), key=lambda record: int(record["id"]))
    pages = [[], real[:1], real[:4], real]
    return tuple(dumped({"_embedded": {"records": records}}) for records in pages)


TARGET = Target(run, _seeds(), is_json=True)

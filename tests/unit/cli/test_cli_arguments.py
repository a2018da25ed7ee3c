"""What people type, and what a command says of an error."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from paywatch.cli.arguments import LedgerOrTime, parse_duration, parse_id, parse_ledger_or_time
from paywatch.cli.failures import Failure, failure_of
from paywatch.cli.output import short, visible
from paywatch.errors import (
    ConfigError,
    HorizonUnavailable,
    InvalidInput,
    NotFound,
    WebhookRefused,
    WrongNetwork,
)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("2h", timedelta(hours=2)),
        ("1d", timedelta(days=1)),
    ],
)
def test_a_duration_has_a_unit(text: str, meant: timedelta) -> None:
    assert parse_duration(text) == meant


@pytest.mark.parametrize(
    "text", ["", "30", "m", "-1m", "1.5h", "1 h", "1w", "\uff19s", "1m30s", "\n1s"]
)
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidInput, match="expires_in: must be a number and its unit"):
        parse_duration(text)


def test_a_duration_longer_than_time_is_refused() -> None:
    with pytest.raises(InvalidInput, match="expires_in"):
        parse_duration("999999999d" if timedelta.max.days < 999_999_999 else "9999999999d")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("1", LedgerOrTime(1, None)),
        ("2147483647", LedgerOrTime(2**31 - 1, None)),
        ("2026-08-01", LedgerOrTime(None, datetime(2026, 8, 1, tzinfo=UTC))),
        ("2026-08-01T12:00Z", LedgerOrTime(None, datetime(2026, 8, 1, 12, tzinfo=UTC))),
        (
            "2026-08-01T12:00+02:00",
            LedgerOrTime(None, datetime(2026, 8, 1, 12, tzinfo=timezone(timedelta(hours=2)))),
        ),
    ],
)
def test_a_place_in_the_past_is_a_ledger_or_a_time(text: str, meant: LedgerOrTime) -> None:
    assert parse_ledger_or_time(text, "from") == meant


@pytest.mark.parametrize("text", ["", "0", "-5", "4294967296", "yesterday", "12:00", "\uff11"])
def test_anything_else_is_no_place(text: str) -> None:
    with pytest.raises(InvalidInput, match="from: must be a ledger's number or a time"):
        parse_ledger_or_time(text, "from")


def test_an_id_is_a_uuid() -> None:
    assert parse_id("01a1f85d-e598-7228-85e5-51e6ec8f2264", "session").version == 7
    with pytest.raises(InvalidInput, match="session: must be an id"):
        parse_id("1", "session")


class _Refused(Exception):
    def __init__(self, message: str, sqlstate: str | None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (InvalidInput("amount", "must be above 0"), 2, "amount: must be above 0"),
        (WebhookRefused("use https"), 2, "use https"),
        (NotFound("there is no session x"), 1, "there is no session x"),
        (WrongNetwork(), 1, "PAYWATCH_NETWORK_PASSPHRASE"),
        (HorizonUnavailable("timeout", "no answer"), 1, "check PAYWATCH_HORIZON_URL"),
        (PoolTimeout(), 1, "no connection in time"),
        (ProgrammingError("SELECT", {}, _Refused("gone", "42P01")), 1, "run `paywatch migrate`"),
        (
            OperationalError("SELECT", {}, _Refused("a\nVALUES", None)),
            1,
            "the database refused: a;",
        ),
        (ExceptionGroup("", [ExceptionGroup("", [NotFound("inner")])]), 1, "inner"),
        (KeyError("whsec_x"), 1, "did not foresee: KeyError"),
    ],
)
def test_every_error_is_a_sentence(error: Exception, code: int, says: str) -> None:
    failure = failure_of(error)
    assert failure.exit_code == code
    assert len(failure.sentences) == 1
    assert says in failure.sentences[0]
    assert "VALUES" not in failure.sentences[0]
    assert "whsec_x" not in failure.sentences[0]


def test_all_problems_of_the_settings_are_told() -> None:
    assert failure_of(ConfigError(["one", "two"])) == Failure(1, ("one", "two"))


def test_a_payers_memo_cannot_steer_the_terminal() -> None:
    assert visible("a\x1b[2J\u202eb\n") == "a\\x1b[2J\\u202eb\\n"
    assert visible("Grüße, 你好") == "Grüße, 你好"


def test_an_account_is_abbreviated_for_tables() -> None:
    assert short("G" + "A" * 51 + "WXYZ") == "GAAAAA…WXYZ"

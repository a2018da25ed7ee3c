"""Logs: one JSON object a line on stderr, ids bound, and never a secret."""

import asyncio
import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog
from stellar_sdk import Keypair

from paywatch.telemetry import bound, configure_logging
from paywatch.telemetry.redaction import Redactor

SEED = Keypair.from_raw_ed25519_seed(bytes(range(32))).secret
WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    def write(self, _text: str) -> int:
        raise BrokenPipeError


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    yield
    root.handlers, root.level = before
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def fail(text: str) -> None:
    raise ValueError(text)


def log() -> structlog.stdlib.BoundLogger:
    return structlog.stdlib.get_logger("paywatch.test")


def test_a_line_is_json_with_time_level_and_logger(stream: io.StringIO) -> None:
    configure_logging("json", "info", stream=stream)
    log().info("settled", credits=3)
    (line,) = lines(stream)
    assert str(line.pop("at")).endswith("Z")
    assert line == {"event": "settled", "credits": 3, "level": "info", "logger": "paywatch.test"}


def test_stderr_is_the_default_and_stdout_stays_clean(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("auto", "info")
    log().info("settled")
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["event"] == "settled"


def test_the_standard_librarys_loggers_take_the_same_way(stream: io.StringIO) -> None:
    configure_logging("json", "info", stream=stream)
    with bound(session_id="s-1"):
        logging.getLogger("alembic.runtime").warning("upgrade %s", "0001")
    (line,) = lines(stream)
    assert line["event"] == "upgrade 0001"
    assert line["logger"] == "alembic.runtime"
    assert line["session_id"] == "s-1"


def test_warnings_take_the_same_way(stream: io.StringIO) -> None:
    with warnings.catch_warnings():
        configure_logging("json", "info", stream=stream)
        warnings.simplefilter("always")
        warnings.warn("old thing", UserWarning, stacklevel=1)
    assert "old thing" in str(lines(stream)[0]["event"])


def test_less_than_the_level_is_left_out(stream: io.StringIO) -> None:
    configure_logging("json", "warning", stream=stream)
    log().info("no")
    logging.getLogger("x").info("no")
    log().warning("yes")
    assert [line["event"] for line in lines(stream)] == ["yes"]


def test_access_logs_are_off(stream: io.StringIO) -> None:
    configure_logging("json", "debug", stream=stream)
    logging.getLogger("uvicorn.access").info("GET /metrics")
    logging.getLogger("aiohttp.access").info("GET /metrics")
    assert lines(stream) == []


def test_configuring_again_replaces_the_first(stream: io.StringIO) -> None:
    first = io.StringIO()
    configure_logging("json", "info", stream=first)
    configure_logging("json", "info", stream=stream)
    log().info("once")
    logging.getLogger("x").info("once")
    assert first.getvalue() == ""
    assert len(lines(stream)) == 2


async def test_ids_are_bound_within_a_task_and_not_beside_it(stream: io.StringIO) -> None:
    configure_logging("json", "info", stream=stream)
    inside, outside = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        with bound(session_id="s-1", operation_id=7, event_id="e-1"):
            inside.set()
            await outside.wait()
            log().info("first")
        log().info("after")

    async def second() -> None:
        await inside.wait()
        log().info("second")
        outside.set()

    await asyncio.gather(first(), second())
    by_event = {line["event"]: line for line in lines(stream)}
    assert by_event["first"]["session_id"] == "s-1"
    assert by_event["first"]["operation_id"] == 7
    assert by_event["first"]["event_id"] == "e-1"
    assert "session_id" not in by_event["second"]
    assert "session_id" not in by_event["after"]


def test_only_the_given_ids_are_bound(stream: io.StringIO) -> None:
    configure_logging("json", "info", stream=stream)
    with bound(operation_id=7):
        log().info("x")
    assert "session_id" not in lines(stream)[0]


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"endpoint has {WHSEC}", WHSEC.removeprefix("whsec_")),
        ("signs with whsk_6Xb/dCcHpPea21PS1N9VY==", "6Xb/dCcHpPea21PS1N9VY"),
        (f"the key is {SEED}.", SEED),
        (f"q={SEED}&x=1", SEED),
        ("postgresql://paywatch:hunter2@db/paywatch", "hunter2"),
        ("postgresql+psycopg://paywatch:hun@ter2@db/paywatch", "ter2"),
        ("postgres://:hunter2@db/paywatch", "hunter2"),
        ("postgresql://db/paywatch?user=x&password=hunter2&y=1", "hunter2"),
        ("host=db password='hunter 2' user=x", "hunter 2"),
        ("host=db SSLPassWord = hunter2 user=x", "hunter2"),
        (WHSEC, WHSEC.removeprefix("whsec_")),
        (SEED, SEED),
        (f"PAYWATCH_SECRET_KEY={KEY}", KEY),
        (f"{{'PAYWATCH_SECRET_KEY': '{KEY}'}}", KEY),
        ("registered: tr0ub4dor&3", "tr0ub4dor"),
        ('registered: hun"ter2\\x', "ter2"),
    ],
)
def test_a_secret_is_redacted_wherever_it_stands(
    log_format: Literal["json", "console"], text: str, secret: str, stream: io.StringIO
) -> None:
    configure_logging(
        log_format,
        "info",
        secrets=["tr0ub4dor&3", 'hun"ter2\\x'],
        stream=stream,
    )
    log().info(text)
    log().info("in a field", field=text, nested={"a": [text]}, raw=text.encode())
    log().info("in an object", error=ValueError(text))
    logging.getLogger("x").warning("in an argument: %s", text)
    try:
        fail(text)
    except ValueError:
        log().exception("in a traceback")
    written = stream.getvalue()
    assert written.count("[redacted]") >= 6
    assert secret not in written.replace("traceback", "").replace("registered", "")
    if log_format == "json":
        assert len(lines(stream)) == 5, "each line is still one JSON object"


@pytest.mark.parametrize(
    "name",
    ["secret", "secret_key", "webhook_secret", "password", "api_key", "Authorization", "seed"],
)
def test_a_field_that_is_secret_by_name_is_redacted(name: str, stream: io.StringIO) -> None:
    configure_logging("json", "info", stream=stream)
    log().info("x", **{name: "abc", "nested": {"deep": {name: "abc"}}})
    assert "abc" not in stream.getvalue()


def test_what_is_no_secret_stays(stream: io.StringIO) -> None:
    configure_logging("json", "info", secrets=["", "x"], stream=stream)
    account = Keypair.from_secret(SEED).public_key
    fields = {
        "account": account,
        "paging_token": "123456",
        "tx_hash": "f" * 64,
        "url": "https://shop.example:8443/hook?x=a@b",
        "database": "postgresql://db:5432/paywatch",
        "text": "axxb",
        "part_of_a_word": f"1{SEED} {SEED}2 x{WHSEC}",
    }
    log().info("kept", **fields)
    (line,) = lines(stream)
    assert fields.items() <= line.items()


def test_the_exact_secrets_are_redacted_longest_first() -> None:
    assert Redactor(["abcdef", "abcdefgh"]).redact("<abcdefgh>") == "<[redacted]>"


def test_a_password_behind_a_keys_name_is_not_left_over() -> None:
    """Its own name was taken for the key, and only that was redacted."""
    line = Redactor([]).redact("PAYWATCH_SECRET_KEY= password=hunter-of-ducks")
    assert "hunter" not in line


def test_a_terminal_gets_lines_for_people() -> None:
    stream = Terminal()
    configure_logging("auto", "info", stream=stream)
    log().info("settled", credits=3)
    assert "\x1b[" in stream.getvalue()
    with pytest.raises(json.JSONDecodeError):
        lines(stream)


def test_a_traceback_shows_no_local_variables(stream: io.StringIO) -> None:
    configure_logging("console", "info", stream=stream)
    local = "the value of a variable".upper()
    try:
        fail(str(len(local)))
    except ValueError:
        log().exception("failed")
    assert "ValueError" in stream.getvalue()
    assert local not in stream.getvalue()


def test_a_memo_of_hostile_bytes_does_not_break_the_line(stream: io.StringIO) -> None:
    configure_logging("json", "info", stream=stream)
    log().info("memo", memo="a\x00\n\ud800", raw=b"\xff")
    assert len(lines(stream)) == 1


def test_a_record_that_cannot_be_written_is_reported_without_its_content(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger().handlers = []  # pytest's own would raise
    configure_logging("json", "info", stream=stream)

    class Unprintable:
        def __repr__(self) -> str:
            raise RuntimeError(WHSEC)

    log().info("x", thing=Unprintable())
    (line,) = lines(stream)
    assert line["event"] == "a log record could not be written"
    assert WHSEC not in stream.getvalue() + "".join(capsys.readouterr())


def test_a_closed_stderr_does_not_stop_the_work() -> None:
    configure_logging("json", "info", stream=Broken())
    log().info("nobody reads this")

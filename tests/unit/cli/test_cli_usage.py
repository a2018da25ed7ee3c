"""Commands that need neither database nor network: help, version, usage, explain."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from paywatch.cli import app
from support.commands import run_command
from support.program import Ended

CREDITED = "GAYOLLLUIZE4DZMBB2ZBKGBUBZLIOYU6XFLW37GBP2VZD3ABNXCW4BVA"
SEED = "SBFGFF27Y64ZUGFAIG5AMJGQODZZKV2YQKAVUUN4HNE24XZXD2OEUVUP"
RECORDS = Path(__file__).parent / "data"
COMMANDS = (
    "migrate", "merchant create", "merchant policy", "session create", "session show",
    "session announce", "session list", "credit list", "credit show", "credit apply",
    "credit refund", "credit return", "stream list", "stream accept-gap", "stream reset",
    "run", "backfill", "recover", "audit", "explain", "doctor",
    "sim", "demo", "delivery list", "delivery resend", "endpoint enable",
)  # fmt: skip


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment without any setting, whose home is empty."""
    return {"HOME": str(tmp_path), "COLUMNS": "200", "XDG_DATA_HOME": ""}


def explain(environ: Mapping[str, str], *args: str, stdin: bytes | None = None) -> Any:
    ended = run_command(environ, "explain", *args, "--json", stdin=stdin)
    assert ended.code == 0, ended.err
    return ended.document


def refused(environ: Mapping[str, str], stdin: bytes, *options: str) -> Ended:
    ended = run_command(environ, "explain", "-", *options, stdin=stdin)
    assert ended.out == ""
    assert "Traceback" not in ended.err
    return ended


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(environ: dict[str, str], command: str) -> None:
    ended = run_command(environ, *command.split(), "--help")
    assert ended.code == 0
    assert f"Usage: paywatch {command}" in ended.out or f"root {command}" in ended.out


def test_there_is_no_other_command() -> None:
    groups = {group.name: group.typer_instance for group in app.registered_groups}
    found = {command.name for command in app.registered_commands}
    for name, group in groups.items():
        assert group is not None
        found |= {f"{name} {command.name}" for command in group.registered_commands}
    assert found == set(COMMANDS)


def test_the_version_is_told(environ: dict[str, str]) -> None:
    ended = run_command(environ, "--version")
    assert (ended.code, ended.out) == (0, "paywatch 0.1.0\n")


@pytest.mark.parametrize(
    "args",
    [
        ("dance",),
        ("session", "create"),
        ("session", "show"),
        ("session", "list", "--status", "lost"),
        ("session", "list", "--limit", "0"),
        ("sim", "--port", "70000"),
        ("sim", "--fault-rate", "2"),
        ("demo", "--once", "--time-limit", "0"),
        ("explain", "no-such-file"),
        ("run", "--role", "dance"),
    ],
)
def test_wrong_usage_ends_with_2(environ: dict[str, str], args: tuple[str, ...]) -> None:
    ended = run_command(environ, *args)
    assert (ended.code, ended.out) == (2, "")


def test_explain_names_the_credits_of_one_account(environ: dict[str, str]) -> None:
    document = explain(environ, str(RECORDS / "joined.json"), "--account", CREDITED)
    assert document["credits"] == 2
    assert document["database"]["consulted"] is False
    credits_ = [credit for record in document["records"] for credit in record["credits"]]
    assert [(c["amount"], c["asset"], c["memo_type"], c["memo"]) for c in credits_] == [
        ("2.0000000", "native", "text", "hello universe"),
        ("200.0000000", "native", "none", ""),
    ]
    assert {c["account"] for c in credits_} == {CREDITED}
    assert {c["does"] for c in credits_} == {"undecided"}


def test_explain_says_why_a_record_holds_nothing(environ: dict[str, str]) -> None:
    document = explain(environ, str(RECORDS / "joined.json"), "--account", CREDITED)
    why = {r["operation_id"]: r["nothing"] for r in document["records"] if not r["credits"]}
    assert why["12884905987"] == "set_options: not a payment"
    assert why["12884905985"].startswith("pays GALPCCZN")


def test_explain_makes_no_database(environ: dict[str, str], tmp_path: Path) -> None:
    explain(environ, str(RECORDS / "joined.json"))
    assert list(tmp_path.iterdir()) == []


def _payment(**changes: object) -> dict[str, Any]:
    found: list[dict[str, Any]] = [
        record
        for record in json.loads((RECORDS / "joined.json").read_text())
        if record["paging_token"] == "120192370561220609"
    ]
    return found[0] | changes


@pytest.mark.parametrize(
    ("changes", "account", "says"),
    [
        ({"transaction_successful": False}, CREDITED, "failed transaction: nothing moved"),
        ({}, "payer", f"outgoing: pays {CREDITED}"),
        ({"from": CREDITED}, CREDITED, "self-payment: nets to zero"),
        ({"amount": "0.0000000"}, CREDITED, "credits nothing"),
    ],
)
def test_explain_tells_money_apart_from_what_only_looks_like_it(
    environ: dict[str, str], changes: dict[str, object], account: str, says: str
) -> None:
    record = _payment(**changes)
    asked_for = str(record["from"]) if account == "payer" else account
    raw = json.dumps(record).encode()
    (found,) = explain(environ, "-", "--account", asked_for, stdin=raw)["records"]
    assert (found["credits"], found["quarantined"]) == ([], None)
    assert found["nothing"] == says


def test_explain_quarantines_what_cannot_be_read(environ: dict[str, str]) -> None:
    raw = json.dumps([_payment(amount="1e3"), {"type": "payment"}]).encode()
    records = explain(environ, "-", stdin=raw)["records"]
    assert [bool(record["quarantined"]) for record in records] == [True, True]


def test_explain_reads_a_captured_stream(environ: dict[str, str]) -> None:
    raw = b'retry: 1000\nevent: open\ndata: "hello"\n\n'
    raw += b"id: 1\ndata: " + json.dumps(_payment()).encode() + b"\n\n"
    (found,) = explain(environ, "-", stdin=raw)["records"]
    assert [credit["account"] for credit in found["credits"]] == [CREDITED]


@pytest.mark.parametrize("raw", [b"", b"{", b"no", b"[1]", b"\xff\xfe", b"[" * 1000, b"NaN"])
def test_what_is_no_capture_is_a_failure_in_a_sentence(environ: dict[str, str], raw: bytes) -> None:
    ended = refused(environ, raw)
    assert ended.code == 1
    assert ended.err.startswith("paywatch: the input cannot be read: ")


def test_a_capture_has_a_limit(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paywatch.cli.explain.MAX_CAPTURE_BYTES", 1 << 20)
    ended = refused(environ, b" " * ((1 << 20) + 1))
    assert ended.code == 1
    assert "more than 1 MiB" in ended.err


@pytest.mark.parametrize(
    ("account", "says"),
    [("G123", "must be a Stellar G… address"), (SEED, "is a secret seed"), (SEED[:-1], "must be")],
)
@pytest.mark.parametrize("command", [("explain", "-"), ("backfill",)])
def test_what_is_no_account_is_refused_and_not_repeated(
    environ: dict[str, str], command: tuple[str, ...], account: str, says: str
) -> None:
    ended = run_command(environ, *command, "--account", account)
    assert (ended.code, ended.out) == (2, "")
    assert f"account: {says}" in ended.err
    assert account not in ended.err


def test_a_seed_in_the_settings_is_refused(environ: dict[str, str]) -> None:
    ended = run_command(environ | {"PAYWATCH_HORIZON_URL": SEED}, "audit")
    assert ended.code == 1
    assert "secret key" in ended.err
    assert SEED not in ended.err

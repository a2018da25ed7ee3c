"""The guide agrees with the program: settings, commands, exit codes, schedule, reports."""

import dataclasses
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.core import TyperGroup

from paywatch.cli import app
from paywatch.cli.failures import FAILURE, USAGE
from paywatch.config import CONFIG_VARIABLE, Settings, env_name, load
from paywatch.domain.delivery import JITTER, MAX_RETRY_AFTER, SCHEDULE
from paywatch.domain.settlement import Outcome
from paywatch.horizon.timing import Timing as HorizonTiming
from paywatch.service.elect import Timing as ElectTiming
from paywatch.service.recover import RecoveryReport
from paywatch.service.recover import Timing as RecoverTiming
from paywatch.store.engine import LOCK_LIMITS
from paywatch.webhooks.sender import Limits
from paywatch.wiring import Role
from paywatch.wiring.house import LEASE
from support.documents import ROOT, blocks, table

GUIDE = ROOT / "docs" / "guide.md"
README = ROOT / "README.md"
TEXT = " ".join(GUIDE.read_text().split())


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def commands() -> dict[str, Any]:
    """Every command by its full name, such as `session create`."""
    found: dict[str, Any] = {}
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    for name, command in root.commands.items():
        if isinstance(command, TyperGroup):
            found |= {f"{name} {inner}": one for inner, one in command.commands.items()}
        else:
            found[name] = command
    return found


def options() -> set[str]:
    return {option for one in commands().values() for p in one.params for option in p.opts}


SETTINGS = {code(name)[0]: shown for name, shown, _ in table(GUIDE, "## Settings")}


def test_the_settings_are_all_there() -> None:
    assert set(SETTINGS) == {env_name(setting) for setting in Settings.model_fields}


@pytest.mark.parametrize("setting", Settings.model_fields)
def test_the_default_of_a_setting_is_shown(setting: str) -> None:
    value = getattr(load({"HOME": "/home/m"}), setting)
    shown = SETTINGS[env_name(setting)]
    if value is None:
        assert shown == "none"
    elif isinstance(value, bool):
        assert shown == f"`{str(value).lower()}`"
    elif isinstance(value, Path):
        assert shown == f"`{value}`".replace("/home/m", "~")
    else:
        assert shown == f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def test_settings_that_the_pages_name_exist() -> None:
    named = set(re.findall(r"\bPAYWATCH_[A-Z_]*[A-Z]\b", GUIDE.read_text() + README.read_text()))
    assert named <= {env_name(setting) for setting in Settings.model_fields} | {CONFIG_VARIABLE}


def test_the_commands_are_all_there() -> None:
    listed: list[str] = []
    for cell, _ in table(GUIDE, "## Commands and exit codes"):
        first, *more = (name.removeprefix("paywatch ") for name in code(cell))
        listed += [first, *(f"{first.split()[0]} {name}" for name in more)]
    assert sorted(listed) == sorted(commands())


def test_the_options_that_the_pages_name_exist() -> None:
    shown = [b.text for page in (GUIDE, README) for b in blocks(page) if b.language != "json"]
    lines = [line for text in shown for line in text.replace("\\\n", " ").splitlines()]
    used = [line for line in lines if re.search(r"\bpaywatch (?!sim\b)[a-z]", line)]
    named = {option for line in used for option in re.findall(r"(?<=\s)--[a-z-]+", line)}
    named |= {option for row in table(GUIDE, "## Sessions") for option in code(row[0])}
    assert len(named) > 8
    assert named <= options()
    [daemon] = [
        row for row in table(GUIDE, "## Commands and exit codes") if "`paywatch run`" in row
    ]
    assert set(code(daemon[1])) == {"--role", *Role}


def test_the_exit_codes_are_the_programs() -> None:
    codes = re.search(r"\| exit code \| \|\n\|---\|---\|\n((?:\|.*\n)+)", GUIDE.read_text())
    assert codes is not None
    assert re.findall(r"^\| (\d) ", codes[1], re.MULTILINE) == ["0", str(FAILURE), str(USAGE)]


def test_the_schedule_is_the_programs() -> None:
    rows = table(
        GUIDE,
        "**When it is tried again.** Ten attempts, 75.6 hours in all, each delay "
        "20 % more or less at random:",
    )
    assert [int(number) for number, _ in rows] == list(range(1, len(SCHEDULE) + 1))
    assert [delay_of(words) for _, words in rows] == list(SCHEDULE)
    hours = sum(SCHEDULE, timedelta()) / timedelta(hours=1)
    assert f"Ten attempts, {hours:.1f} hours" in TEXT
    assert len(SCHEDULE) == 10
    assert f"{JITTER:.0%}".replace("%", " %") in TEXT
    assert f"by up to {MAX_RETRY_AFTER // timedelta(hours=1)} hours" in TEXT


def delay_of(words: str) -> timedelta:
    if words == "at once":
        return timedelta(0)
    number, unit = words.split()
    return timedelta(**{unit: int(number)})


def test_the_limits_of_a_webhook_are_the_programs() -> None:
    limits = Limits()
    assert f"within {limits.deadline_s:g} seconds" in TEXT
    assert f"At most {limits.body_bytes >> 10} KiB of the answer are read" in TEXT
    assert f"its first {limits.excerpt_bytes >> 10} KiB are kept" in TEXT
    assert f"lease has run out ({LEASE.seconds} seconds)" in TEXT


def test_the_waits_are_the_programs() -> None:
    assert ElectTiming().round_s == 0.5
    assert "every half second" in TEXT
    assert f"after {LOCK_LIMITS['idle_session_timeout'][:-1]} seconds of silence" in TEXT
    assert RecoverTiming().expire_s == 5
    assert "the daemon does this every five seconds" in TEXT
    assert RecoverTiming().interval_s == 300
    assert "every five minutes" in TEXT
    assert RecoverTiming().window_s == timedelta(days=7).total_seconds()
    assert "last seven days" in TEXT
    assert "last seven days" in README.read_text()
    assert HorizonTiming().reconcile_s == 15


def test_the_report_of_recovery_has_these_fields() -> None:
    named = [name for cell, _ in table(GUIDE, "## Recover") for name in code(cell)]
    assert named == [field.name for field in dataclasses.fields(RecoveryReport)]


def test_the_doctor_looks_at_these_parts() -> None:
    sources = ("service/doctor.py", "wiring/examining.py", "cli/setup.py")
    text = "".join((ROOT / "src" / "paywatch" / source).read_text() for source in sources)
    parts = set(re.findall(r"\b(?:Finding|_wrong|_well)\(\s*\"([a-z ]+)\"", text))
    named = [code(cell)[0] for cell, _ in table(GUIDE, "## Doctor")]
    assert len(named) == len(parts)
    assert set(named) == parts


def test_the_ways_of_paying_know_these_outcomes() -> None:
    cells = [row[2] for row in table(GUIDE, "## What can come, and how it shows")]
    named = {name for cell in cells for name in code(cell)}
    assert named == set(Outcome) - {Outcome.CANCELED, Outcome.RETURNED}

"""What the README says beside its commands agrees with the program."""

import re

from paywatch.domain.checkout import SessionStatus
from paywatch.domain.events import EventType
from paywatch.domain.settlement import Outcome
from support.documents import ROOT, table

README = ROOT / "README.md"
TEXT = README.read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def first_cells(heading: str) -> list[str]:
    return [row[0].strip("`") for row in table(README, heading)]


def test_the_statuses_are_all_there() -> None:
    assert first_cells("## Sessions and their statuses") == list(SessionStatus)


def test_the_outcomes_are_all_there() -> None:
    assert first_cells("reason, and without effect on the session.") == list(Outcome)


def test_the_events_are_all_there() -> None:
    assert re.findall(r"^`((?:checkout|payment)\.\S+)`: ", TEXT, re.MULTILINE) == list(EventType)


def test_the_commands_of_make_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)\b", "\n".join(commands())))
    assert {"demo", "test", "check", "docs", "bench"} <= named <= targets


def commands() -> list[str]:
    return re.findall(r"`[^`\n]+`|^(?:\$ )?make .*$", TEXT, re.MULTILINE)


def test_the_output_of_the_demo_is_that_of_the_program() -> None:
    runs = (ROOT / "src/paywatch/cli/demo/runs.py").read_text()
    [shown] = re.findall(
        r"^\$ make demo DEMO_ARGS=--once\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL
    )
    last = shown.splitlines()[-1]
    assert f'"{last}"' in runs
    [columns] = re.findall(r"columns = \((.*)\)", runs)
    head = next(line for line in shown.splitlines() if "how paid" in line)
    assert re.split(r"  +", head.strip()) == re.findall(r'"([^"]+)"', columns)


def test_the_health_pages_exist() -> None:
    app = (ROOT / "src/paywatch/web/app.py").read_text()
    for page in re.findall(r"`(?:http://127\.0\.0\.1:8480)?(/(?:health/)?[a-z]+)`", TEXT):
        assert f'"{page}"' in app

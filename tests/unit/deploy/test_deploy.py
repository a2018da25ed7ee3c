"""What an operator installs agrees with the program; what tools can check is in deploy/check."""

import re
import subprocess
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from paywatch.config import CONFIG_VARIABLE, Settings, env_name, load
from paywatch.domain.delivery import SCHEDULE
from paywatch.horizon.reconnects import CLOSED
from paywatch.horizon.transport import NOT_FOUND
from paywatch.telemetry import Metrics
from paywatch.telemetry.metrics import ATTEMPT_RESULTS, BREAKER_STATES, REPAIRS, STREAM_STATES

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
UNIT = (DEPLOY / "paywatch.service").read_text()
EXAMPLE = (DEPLOY / "paywatch.env.example").read_text()
RULES = (DEPLOY / "alerts.yml").read_text()
RULE_TESTS = (DEPLOY / "alerts_test.yml").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
ALERTS = re.findall(r"- alert: (\w+)", RULES)


def unit(key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", UNIT, re.MULTILINE)


def examples() -> dict[str, str]:
    """The settings of the example, as systemd would read them once the # is away."""
    found = re.findall(r"^#(PAYWATCH_\w+)=(.*)$", EXAMPLE, re.MULTILINE)
    assert len(found) == len(dict(found)), "a setting stands there twice"
    return {name: value.strip('"') for name, value in found}


def exported() -> set[str]:
    metrics = Metrics()
    metrics.stream_state.labels(stream="G1").state("live")
    text = generate_latest(metrics.registry).decode()
    names = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    return names | set(re.findall(r"^(\w+)[ {]", text, re.MULTILINE))


def mentioned(text: str) -> set[str]:
    names = set(re.findall(r"\bpaywatch_[a-z_]+\b", text))
    return {name.removesuffix("_bucket") for name in names}


def test_the_example_names_exactly_the_settings() -> None:
    assert set(examples()) == {env_name(setting) for setting in Settings.model_fields}


def test_the_example_shows_the_defaults() -> None:
    assert load({**examples(), "HOME": "/home/m"}) == load({"HOME": "/home/m"})
    secret = {"PAYWATCH_DATABASE_URL", "PAYWATCH_SECRET_KEY", "PAYWATCH_DATA_DIR"}
    assert {name for name, value in examples().items() if not value} == secret


def test_the_example_changes_nothing_as_it_is() -> None:
    lines = [line for line in EXAMPLE.splitlines() if line]
    assert all(line.startswith("#") for line in lines)


def test_the_credentials_of_the_unit_are_the_secrets_of_the_settings() -> None:
    names = {entry.partition(":")[0] for entry in unit("LoadCredential")}
    assert names == {"paywatch_database_url", "paywatch_secret_key"}
    assert names <= {f"paywatch_{setting}" for setting in Settings.model_fields}


def test_the_unit_migrates_before_it_runs_and_is_watched() -> None:
    assert unit("Type") == ["notify"]
    assert unit("ExecStartPre") == ["/opt/paywatch/venv/bin/paywatch migrate"]
    assert unit("ExecStart") == ["/opt/paywatch/venv/bin/paywatch run"]
    assert unit("WatchdogSec") == ["60s"]
    assert unit("Restart") == ["always"]
    assert unit("StartLimitIntervalSec") == ["0"]


def test_a_graceful_stop_has_time_for_the_batch_and_the_attempts_in_flight() -> None:
    (stop,) = unit("TimeoutStopSec")
    attempt_s, http_s, batch_s = 15, 5, 20
    assert int(stop.removesuffix("s")) >= attempt_s + http_s + batch_s
    assert unit("KillSignal") == ["SIGTERM"]
    assert unit("KillMode") == ["mixed"], "the embedded database must not be ended before us"


def test_each_alert_fires_in_one_test_and_does_not_in_another() -> None:
    checks = re.findall(r"alertname: (\w+)\n\s+exp_alerts:( \[\]|\n\s+- exp_labels)", RULE_TESTS)
    fires = {alert for alert, expected in checks if "exp_labels" in expected}
    silent = {alert for alert, expected in checks if "[]" in expected}
    assert len(ALERTS) == len(set(ALERTS)) > 15
    assert set(ALERTS) == fires == silent


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_has_its_section_for_the_operator(alert: str) -> None:
    assert f"\n### {alert}\n" in OPERATIONS


def test_no_section_is_about_an_alert_that_is_gone() -> None:
    assert re.findall(r"^### (\w+)$", OPERATIONS, re.MULTILINE) == ALERTS


def test_the_rules_rely_on_metrics_that_are_exported() -> None:
    expressions = "\n".join(line for line in RULES.splitlines() if not line.strip().startswith("#"))
    used = mentioned(expressions)
    assert len(used) > 10
    assert used <= exported()


# A status code is Horizon's word; a reason is one of those that the program gives.
REASONS = {CLOSED, NOT_FOUND}
LABEL_VALUES = {
    "paywatch_stream_state": set(STREAM_STATES),
    "paywatch_horizon_breaker": set(BREAKER_STATES),
    "repair": set(REPAIRS),
    "result": set(ATTEMPT_RESULTS),
    "reason": REASONS,
    "code": {"429"},
    "job": {"paywatch"},
}


def test_the_rules_look_for_label_values_that_the_program_gives() -> None:
    matchers = re.findall(r'[{,](\w+)[!=]~?"([^"]*)"', RULES)
    assert len(matchers) >= 7
    for label, values in matchers:
        assert set(values.split("|")) <= LABEL_VALUES[label], label


def test_the_operators_page_names_exactly_the_metrics() -> None:
    ours = {
        re.sub(r"_(bucket|count|sum|created)$", "", name)
        for name in exported()
        if name.startswith("paywatch_")
    }
    # A counter's family and its sample; the name with _total is what is queried.
    ours -= {name.removesuffix("_total") for name in ours if name.endswith("_total")}
    assert mentioned(OPERATIONS) == ours - {"paywatch_build"}


def test_the_operators_page_tells_the_schedule_of_the_webhooks() -> None:
    hours = sum(delay.total_seconds() for delay in SCHEDULE) / 3600
    assert f"within {int(hours)} hours" in OPERATIONS


def test_settings_that_the_pages_name_exist() -> None:
    known = {env_name(setting) for setting in Settings.model_fields} | {CONFIG_VARIABLE}
    guide = (DEPLOY / "README.md").read_text()
    named = set(re.findall(r"\bPAYWATCH_[A-Z_]*[A-Z]\b", guide + OPERATIONS + UNIT + RULES))
    assert len(named) >= 4
    assert named <= known


def test_a_missing_tool_fails_the_check(tmp_path: Path) -> None:
    for tool in ("bash", "dirname"):
        (tmp_path / tool).symlink_to(f"/usr/bin/{tool}")
    done = subprocess.run(  # noqa: S603 - our own script
        [DEPLOY / "check"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 1
    assert "systemd-analyze is missing" in done.stderr

"""Metrics: what the operator's rules rely on is there from the start, under its name."""

import re
from pathlib import Path

from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import paywatch
from paywatch.domain.checkout import SessionStatus
from paywatch.domain.settlement import Outcome
from paywatch.telemetry import Metrics
from paywatch.telemetry.metrics import ATTEMPT_RESULTS, REPAIRS, STREAM_STATES

EVERYTHING = {
    "paywatch_build_info",
    "paywatch_position_ledger",
    "paywatch_lag_ledgers",
    "paywatch_lag_seconds",
    "paywatch_clock_lag_seconds",
    "paywatch_upstream_ledger",
    "paywatch_upstream_lag_seconds",
    "paywatch_credits",
    "paywatch_payments",
    "paywatch_detection_latency_seconds",
    "paywatch_settlement_duration_seconds",
    "paywatch_batch_records",
    "paywatch_settlement_retries",
    "paywatch_sessions",
    "paywatch_accounts",
    "paywatch_attempts",
    "paywatch_attempt_duration_seconds",
    "paywatch_outbox_deliveries",
    "paywatch_outbox_oldest_seconds",
    "paywatch_dead_letters",
    "paywatch_recovered",
    "paywatch_quarantined",
    "paywatch_quarantine_records",
    "paywatch_invariant_violations",
    "paywatch_invariants_checked_timestamp_seconds",
    "paywatch_audit_mismatches",
    "paywatch_audited_timestamp_seconds",
    "paywatch_horizon_requests",
    "paywatch_horizon_tip_ledger",
    "paywatch_horizon_lag_seconds",
    "paywatch_horizon_elder_ledger",
    "paywatch_horizon_budget_requests",
    "paywatch_horizon_breaker",
    "paywatch_horizon_changes",
    "paywatch_reconnects",
    "paywatch_stream_leader",
    "paywatch_stream_rebuilds",
    "paywatch_stream_state",
}


def exported(metrics: Metrics) -> dict[str, list[dict[str, str]]]:
    text = generate_latest(metrics.registry).decode()
    return {
        family.name: [sample.labels for sample in family.samples]
        for family in text_string_to_metric_families(text)
    }


def test_exactly_the_documented_metrics_are_exported() -> None:
    names = {name for name in exported(Metrics()) if name.startswith("paywatch_")}
    # The creation times that the library adds are not metrics of ours.
    assert {name for name in names if not name.endswith("_created")} == EVERYTHING


def test_every_metric_and_every_label_value_is_set_by_somebody() -> None:
    source = Path(paywatch.__file__).parent
    others = [path for path in source.rglob("*.py") if path.name != "metrics.py"]
    text = "\n".join(path.read_text() for path in others)
    used = set(re.findall(r"\b(?:metrics|counted)\.([a-z_]+)\b", text))
    ours = set(vars(Metrics())) - {"registry"}
    assert len(ours) > 20
    assert ours <= used
    values = {*STREAM_STATES, *ATTEMPT_RESULTS, *REPAIRS}
    assert {value for value in values if f'"{value}"' not in text} == set()


def test_two_daemons_in_one_process_do_not_share_a_number() -> None:
    one, other = Metrics(), Metrics()
    one.payments.inc()
    assert one.registry.get_sample_value("paywatch_payments_total") == 1
    assert other.registry.get_sample_value("paywatch_payments_total") == 0
    assert not any(family.name.startswith("paywatch") for family in REGISTRY.collect())


def test_known_labels_are_there_from_the_start_so_that_the_first_increase_is_seen() -> None:
    found = exported(Metrics())
    assert {s["outcome"] for s in found["paywatch_credits"]} == {o.value for o in Outcome}
    assert {s["status"] for s in found["paywatch_sessions"]} == {s.value for s in SessionStatus}
    assert {s["result"] for s in found["paywatch_attempts"]} == {
        "delivered",
        "retry",
        "dead",
        "gone",
    }
    assert "missing_payment" in {s["repair"] for s in found["paywatch_recovered"]}


def test_a_stream_is_in_one_state() -> None:
    metrics = Metrics()
    metrics.stream_state.labels(stream="G1").state("live")
    states = {
        state: metrics.registry.get_sample_value(
            "paywatch_stream_state", {"stream": "G1", "paywatch_stream_state": state}
        )
        for state in ("catching_up", "live", "stopped")
    }
    assert states == {"catching_up": 0, "live": 1, "stopped": 0}


def test_a_ledger_number_survives_the_float() -> None:
    metrics = Metrics()
    largest = 2**31 - 1
    metrics.position_ledger.labels(stream="G1").set(largest)
    assert (
        metrics.registry.get_sample_value("paywatch_position_ledger", {"stream": "G1"}) == largest
    )
    assert " 2.147483647e+09\n" in generate_latest(metrics.registry).decode()

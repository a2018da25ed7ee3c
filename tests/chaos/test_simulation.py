"""Seeds of the simulation; more of them by a command: `make sim`. The checks are checked, too."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import psycopg
import pytest

from paywatch.sim import Fault
from simulation import jobs
from simulation.checks import Checks, Look
from simulation.jobs import TEMPLATE, prepare
from simulation.plan import AnswerRates, draw
from simulation.run import simulate
from support.databases import Cluster, open_cluster

TESTS = Path(__file__).parents[1]
# The first twenty, and some that meet what is rare: an instance that begins to lag, a 410.
SEEDS = "0-19,32,35,43,47,93,141,142"
FAULTS = {
    *(f"horizon_{fault}" for fault in Fault),
    *(f"instance_{kind}" for kind in ("foreign", "lagging", "short")),
    *(f"answer_{rate.name}" for rate in fields(AnswerRates)),
    *(
        f"{trouble}_{when}"
        for trouble in ("lost_before", "lost_after", "serialization", "crash_before", "crash_after")
        for when in ("statement", "commit")
    ),
    *("deadlock_statement", "crash", "stop", "freeze", "jump", "away", "lag", "hide", "garbled"),
}
OUTCOMES = {
    *(f"session {status}" for status in ("paid exact", "paid over", "paid under", "paid late")),
    *(f"credit {outcome}" for outcome in ("applied", "duplicate", "late", "wrong_asset")),
    *("session expired", "credit unmatched", "credit applied was unmatched"),
    *("credit returned was duplicate", "delivery delivered", "delivery dead"),
}


def run_seeds(*arguments: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    environ = os.environ | {"PYTHONPATH": paths, "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-m", "simulation", *arguments]
    return subprocess.run(  # noqa: S603 - ourselves
        command, env=environ, capture_output=True, text=True, check=False
    )


@pytest.mark.timeout(1200)
def test_what_must_hold_holds_whatever_goes_wrong_and_all_of_it_does() -> None:
    ended = run_seeds("--seeds", SEEDS)
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
    assert counted("faults met", ended.stdout) == FAULTS
    assert counted("came", ended.stdout) >= OUTCOMES


def counted(what: str, told: str) -> set[str]:
    """The kinds that a run of seeds has counted."""
    [line] = re.findall(rf"^.*\b{what}: (.+)$", told, re.MULTILINE)
    return {kind.rpartition(" ")[0] for kind in line.split(", ")}


@pytest.mark.timeout(600)
def test_the_same_seed_is_the_same_run() -> None:
    ended = run_seeds("--seeds", "101,102", "--twice")
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]


def test_most_kinds_of_faults_are_off_in_most_seeds_and_all_are_drawn() -> None:
    plans = [draw(seed) for seed in range(200)]
    met = [fault for plan in plans for fault, _, _ in plan.horizon_faults]
    assert len(set(met)) == 14
    assert 0.05 < sum(plan.is_calm for plan in plans) / 200 < 0.3
    assert 0.2 < sum(bool(plan.troubles.crash) for plan in plans) / 200 < 0.5
    assert draw(7) == draw(7)


@pytest.fixture(scope="module")
def prepared() -> Iterator[Cluster]:
    with open_cluster() as cluster:
        prepare(cluster)
        yield cluster


def test_a_seed_that_is_broken_off_is_wrong(
    prepared: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(*_: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(jobs, "simulate", break_off)
    assert "CancelledError" in jobs.Job(prepared, 1).run().wrong[0]


# What a broken program would do, done to its rows behind its back.
SABOTAGE = {
    "a_credit_is_lost": (
        "AFTER INSERT ON credits",
        "DELETE FROM credits WHERE operation_id = NEW.operation_id AND NEW.outcome = 'applied'",
        "invariant paid_if_and_only_if_credited",
    ),
    "a_cursor_leaps_over_a_ledger": (
        "BEFORE UPDATE ON cursors",
        "IF NEW.position > OLD.position THEN NEW.position := NEW.position + 4294967296; END IF",
        "the ledger ends at",
    ),
    "settling_never_gets_on": (
        "BEFORE INSERT ON credits",
        "IF NEW.outcome = 'unmatched' THEN RETURN NULL; END IF",
        "ended by itself",
    ),
    "a_credit_is_a_stroop_too_much": (
        "BEFORE INSERT ON credits",
        "NEW.amount := NEW.amount + 1",
        "on the ledger",
    ),
    "an_event_has_another_id_each_time": (
        "BEFORE INSERT ON events",
        "NEW.id := gen_random_uuid()",
        "invariant an_event_is_its_sessions_or_credits",
    ),
    "watching_begins_too_late": (
        "BEFORE INSERT ON accounts",
        "NEW.start_position := NEW.start_position + 42949672960",
        "is watched from",
    ),
    "a_webhook_is_no_json": (
        "BEFORE INSERT ON events",
        "NEW.payload := 'nonsense'",
        "broke a check",
    ),
    "a_delivery_counts_as_made_before_it_is": (
        "BEFORE INSERT ON deliveries",
        "NEW.state := 'delivered'; NEW.ended_at := NEW.due_at",
        "invariant a_delivery_is_what_its_attempts_made_it",
    ),
    "an_event_goes_nowhere": (
        "BEFORE INSERT ON deliveries",
        "UPDATE endpoints SET created_at = 'infinity'; RETURN NULL",
        "is on its way to nobody",
    ),
    "what_is_in_another_asset_is_called_late": (
        "BEFORE INSERT ON credits",
        "IF NEW.outcome = 'wrong_asset' THEN NEW.outcome := 'late'; END IF",
        "invariant an_outcome_fits_its_session",
    ),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SABOTAGE)
def test_the_checks_see(prepared: Cluster, name: str) -> None:
    when, what, problem = SABOTAGE[name]
    url = prepared.copy(TEMPLATE, name)
    with psycopg.connect(url, autocommit=True) as conn:
        body = f"BEGIN {what}; RETURN NEW; END"
        conn.execute(f"CREATE FUNCTION sabotage() RETURNS trigger LANGUAGE plpgsql AS $${body}$$")
        conn.execute(f"CREATE TRIGGER sabotage {when} FOR EACH ROW EXECUTE FUNCTION sabotage()")
    result = simulate(1, url)
    assert any(problem in found for found in result.wrong), result.wrong


@pytest.mark.timeout(300)
def test_a_credit_that_is_missing_behind_its_cursor_is_seen(
    prepared: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Checks.look

    def without_the_first(checks: Checks) -> Look:
        seen = look(checks)
        for key in sorted(seen.credits)[:1]:
            del seen.credits[key]
        return seen

    monkeypatch.setattr(Checks, "look", without_the_first)
    result = simulate(1, prepared.copy(TEMPLATE, "missing"))
    assert any("it is no credit" in found for found in result.wrong), result.wrong

"""A process that is killed at any named point of its work loses nothing and tells nothing twice.

The points are those that the processes pass here: a new statement is a new point by itself, and a
transaction that no scene has fails a test. The same again and again, and with worse than that, by a
command: `make crash-points`.
"""

import ast
from functools import partial
from pathlib import Path

import pytest

from support.crashes.blows import crash_server_at, freeze_at
from support.crashes.probe import WRAPPERS
from support.crashes.scenes import FOLLOWING, SCENES, STARTING, TELLING, Scene
from support.crashes.trial import kill_at_every_point, open_trial
from support.databases import open_cluster
from support.documents import ROOT

SERVICE = ROOT / "src" / "paywatch" / "service"
MOMENTS = (  # at which PostgreSQL crashes here; at every other by the command
    (FOLLOWING, "settle.settle_and_commit: before COMMIT"),
    (FOLLOWING, "settle.settle_and_commit: COMMIT sent"),
    (TELLING, "post: before"),
    (TELLING, "attempts.record: COMMIT answered, unread"),
)
NOT_KILLED = {
    "reads only": {
        "audit.read_and_compare",
        "audit.readings",
        "backfill.resume_all",
        "checkout.list_sessions",
        "checkout.read_policy",
        "checkout.read_session",
        "held.read",
        "held.read_list",
        "histories.cursors",
        "histories.present",
        "listen.accounts",
        "network.batches",
        "processing.look_after",
        "recover.check_invariants",
        "recover.repair_unproven",
        "search.bring_account",
        "settle.history",
        "trace.watched",
    },
    "a person's command, all of it one transaction": {
        "checkout.change_policy",
        "checkout.create_session",
        "checkout.write_merchant",
        "gaps.accept",
        "held.apply",
        "held.mark_returned",
        "histories.begin",
        "letters.enable_endpoint",
        "letters.resend",
    },
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
async def test_killed_at_each_point(scene: Scene, database_url: str, tmp_path: Path) -> None:
    async with open_trial(database_url, tmp_path) as trial:
        await kill_at_every_point(trial, scene)
    assert trial.figures.different == []


@pytest.mark.timeout(300)
async def test_a_crash_of_postgresql_at_a_point_is_survived_by_the_daemon(tmp_path: Path) -> None:
    with open_cluster() as cluster:
        async with open_trial(cluster.create("town"), tmp_path) as trial:
            for number, (scene, point) in enumerate(MOMENTS):
                kill = partial(cluster.kill_backend, "town")
                crash = kill if number % 2 else cluster.cut_power
                await crash_server_at(trial, scene, point, crash)
            await trial.rest()
    assert trial.figures.different == []


async def test_what_a_blow_left_to_repair_is_not_laid_at_the_next_ones_door(
    database_url: str, tmp_path: Path
) -> None:
    async with open_trial(database_url, tmp_path) as trial:
        await trial.kill_at(STARTING, "recover.repair_untold: before BEGIN")
        await crash_server_at(trial, FOLLOWING, "post: head read", lambda: None)
    assert trial.figures.different == []


async def test_who_was_frozen_with_a_lease_and_lost_it_records_nothing(
    database_url: str, tmp_path: Path
) -> None:
    async with open_trial(database_url, tmp_path) as trial:
        await freeze_at(trial, TELLING, "post: head read", None)
        await trial.rest()
    assert trial.figures.different == []


def test_each_function_that_opens_a_transaction_is_killed_or_has_its_reason_not_to_be() -> None:
    opened = {name for module in SERVICE.glob("*.py") for name in _openers(module)}
    killed = {name for scene in SCENES for name in scene.owns}
    assert opened - killed == set().union(*NOT_KILLED.values())


def _openers(module: Path) -> set[str]:
    """The functions of a module that open transactions, by themselves or by a wrapper."""
    tree = ast.parse(module.read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    functions = [
        node
        for body in (tree.body, *(one.body for one in classes))
        for node in body
        if isinstance(node, ast.AsyncFunctionDef) and node.name not in WRAPPERS
    ]
    return {
        f"{module.stem}.{function.name.strip('_')}"
        for function in functions
        if {"begin", *WRAPPERS} & {_called(one) for one in ast.walk(function)}
    }


def _called(node: ast.AST) -> str:
    match node:
        case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)):
            return name
    return ""

"""A bug is caught by a check that fails, not by a run that could not begin."""

from planted.bug import PACKAGE, SIMULATION
from planted.catchers import copy_with, run_tests, simulate

NODE = "unit/domain/test_ledger.py"


def test_sources_that_cannot_be_imported_are_caught_by_nothing() -> None:
    with copy_with(None) as root:
        (root / PACKAGE / "errors.py").write_text("raise ImportError('planted')\n")
        verdicts = simulate(root, SIMULATION, range(1)), run_tests(root, NODE, [NODE])
    assert [verdict.caught for verdict in verdicts] == [False, False]
    assert [verdict.by for verdict in verdicts] == ["it could not be run"] * 2

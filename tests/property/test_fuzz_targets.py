"""The fuzzer's targets on changed real inputs: no crash but the errors of ours, no hang, no bloat.

Work is counted, not timed: lines of Python that run, and bytes that are allocated, are bounded by
the size of the input. The guided search for more is a command: `make fuzz`.
"""

import sys
import tracemalloc
from collections.abc import Iterator
from importlib import import_module
from random import Random
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.mutation import mutate_bytes, mutate_json
from fuzz.target import NAMES, Target, dumped

TARGETS: dict[str, Target] = {name: import_module(f"fuzz.{name}").TARGET for name in NAMES}
QUICK = [name for name in NAMES if not TARGETS[name].is_slow]
LINES_A_BYTE = 100  # a target runs the parser several times, and the checks are lines, too
BYTES_A_BYTE = 120  # a Python object is large beside one character of JSON
LARGE = 30_000

CALL = {
    "paging_token": "1",
    "type": "invoke_host_function",
    "transaction_successful": True,
    "asset_balance_changes": [{"type": "transfer", "from": "G" * 56, "to": "C" * 56}] * 600,
}
ROWS = [
    {"paging_token": f"{n}", "type": "new", "to": "G" * 56, "deep": [[[n]]]} for n in range(1, 200)
]
LARGE_JSON: tuple[Any, ...] = (
    CALL,
    {"_embedded": {"records": ROWS}},
    {"last_modified_ledger": 1, "balances": [{"last_modified_ledger": n} for n in range(2000)]},
    {f"{n}": n for n in range(5000)},
    {"a": [{}] * 10_000},
)


@pytest.fixture(scope="module", autouse=True)
def _servers() -> Iterator[None]:
    yield
    for name in ("answers", "horizon_http"):
        import_module(f"fuzz.{name}").SERVER.close()


def changed(target: Target, rng: Random, changes: int) -> bytes:
    raw = rng.choice(target.seeds)
    for _ in range(changes):
        is_json = target.is_json and rng.random() < 0.7
        raw = mutate_json(raw, rng) if is_json else mutate_bytes(raw, rng)
    return raw


@pytest.mark.parametrize("name", NAMES)
@given(rng=st.randoms(use_true_random=True), changes=st.integers(1, 8))
@settings(max_examples=150, derandomize=True)
def test_changed_inputs_are_read_or_refused(name: str, rng: Random, changes: int) -> None:
    TARGETS[name].run(changed(TARGETS[name], rng, changes))


@pytest.mark.parametrize("name", QUICK)
@given(raw=st.binary(max_size=300))
@settings(max_examples=100, derandomize=True)
def test_any_bytes_are_read_or_refused(name: str, raw: bytes) -> None:
    TARGETS[name].run(raw)


class Work:
    """Counts lines of Python."""

    def __init__(self) -> None:
        self.lines = 0

    def trace(self, _: FrameType, event: str, __: Any) -> Any:
        self.lines += event == "line"
        return self.trace


def large_inputs(target: Target) -> list[bytes]:
    """Real inputs, and what they are made of, over and over."""
    seed = max(target.seeds, key=len)[:LARGE]
    units = [
        seed,
        b"[",
        b'{"a":',
        b"\r",
        b"data\n",
        b"data: x\n\n",
        b"9",
        b".",
        b"\xff",
        b" ",
        b"=",
    ]
    return [*(unit * (LARGE // len(unit)) for unit in units), *map(dumped, LARGE_JSON)]


@pytest.mark.parametrize("name", QUICK)
def test_the_work_is_bounded_by_the_size_of_the_input(name: str) -> None:
    target = TARGETS[name]
    for raw in large_inputs(target):
        work = Work()
        before = sys.gettrace()
        sys.settrace(work.trace)
        try:
            target.run(raw)
        finally:
            sys.settrace(before)
        assert work.lines <= LINES_A_BYTE * len(raw), raw[:20]


@pytest.mark.parametrize("name", QUICK)
def test_the_memory_is_bounded_by_the_size_of_the_input(name: str) -> None:
    target = TARGETS[name]
    target.run(target.seeds[0])  # what is imported and cached is not the input's
    for raw in large_inputs(target):
        tracemalloc.start()
        try:
            target.run(raw)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak <= BYTES_A_BYTE * len(raw), raw[:20]

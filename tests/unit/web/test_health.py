"""Health: who is behind whom, and that no check can hold up or break the answer."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from paywatch.web.health import Finding, examine, judge_listen, judge_upstream

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FINE = Finding(ready=True, state="ok", message="fine")


def s(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("age", "ready", "state"), [(0, True, "ok"), (60, True, "ok"), (61, False, "behind")]
)
def test_upstream_is_judged_against_the_clock(age: float, *, ready: bool, state: str) -> None:
    finding = judge_upstream(NOW - s(age), NOW)
    assert (finding.ready, finding.state) == (ready, state)
    assert f"{age} s old" in finding.message


def test_an_upstream_that_does_not_answer_is_unreachable_not_behind() -> None:
    finding = judge_upstream(None, NOW)
    assert (finding.ready, finding.state) == (False, "unreachable")
    assert "PAYWATCH_HORIZON_URL" in finding.message


@pytest.mark.parametrize(
    ("lags", "ready", "state"),
    [
        ({}, True, "ok"),
        ({"G1": s(0), "G2": s(60)}, True, "ok"),
        ({"G1": s(0), "G2": s(61)}, False, "behind"),
        ({"G1": s(0), "G2": None}, False, "starting"),
        ({"G1": s(61), "G2": None}, False, "behind"),
    ],
)
def test_our_streams_are_judged_against_horizons_tip(
    lags: dict[str, timedelta | None], *, ready: bool, state: str
) -> None:
    finding = judge_listen(lags)
    assert (finding.ready, finding.state) == (ready, state)


@pytest.mark.parametrize(
    ("states", "ready", "state"),
    [
        ({"G1": "live", "G2": "stopped"}, False, "stopped"),
        ({"G1": "stalled", "G2": "stopped"}, False, "stopped"),
        ({"G1": "live", "G2": "stalled"}, False, "stalled"),
        ({"G1": "standby", "G2": "standby"}, True, "standby"),
        ({"G1": "standby", "G2": "live"}, True, "ok"),
        ({"G1": "retrying", "G2": "catching_up"}, True, "ok"),
    ],
)
def test_what_the_streams_say_of_themselves_comes_first(
    states: dict[str, str], *, ready: bool, state: str
) -> None:
    stopped = {one: f"why {one}" for one in states if states[one] == "stopped"}
    finding = judge_listen(dict.fromkeys(states, s(0)), states, stopped)
    assert (finding.ready, finding.state) == (ready, state)
    if not ready:
        assert "1 of 2 streams" in finding.message
        assert finding.message.endswith(next(one for one in states if states[one] == state))


def test_the_worst_stream_is_named() -> None:
    message = judge_listen({"G1": s(100), "G2": s(3600), "G3": s(0)}).message
    assert message.startswith("2 of 3 streams are behind Horizon, G2 by 3600 s; ")


def test_lesson_17_upstream_behind_and_we_behind_are_different_states() -> None:
    """An hour-old tip that we have read to its end: Horizon is late, we are not."""
    assert judge_upstream(NOW - s(3600), NOW).state == "behind"
    assert judge_listen({"G1": s(0)}).ready


def test_a_standby_is_ready_however_far_its_leader_is_behind() -> None:
    """It can do its work, which is to take over; the leader's own page tells the lag."""
    finding = judge_listen({"G1": s(3600), "G2": None}, {"G1": "standby", "G2": "standby"})
    assert (finding.ready, finding.state) == (True, "standby")


def test_a_leader_answers_for_the_streams_that_it_leads() -> None:
    states = {"G1": "live", "G2": "standby"}
    assert judge_listen({"G1": s(0), "G2": s(3600)}, states).state == "ok"
    assert judge_listen({"G1": s(3600), "G2": s(0)}, states).state == "behind"


async def test_a_check_that_hangs_does_not_hold_up_the_others() -> None:
    hung = asyncio.Event()

    async def hangs() -> Finding:
        await hung.wait()
        return FINE

    async def answers() -> Finding:
        return FINE

    async with asyncio.timeout(10):
        found = await examine({"database": hangs, "upstream": answers}, timeout_s=0.01)
    assert found["upstream"] == FINE
    assert (found["database"].ready, found["database"].state) == (False, "timeout")
    assert "no answer about database within 0.01 s" in found["database"].message


async def test_all_checks_run_at_the_same_time() -> None:
    barrier = asyncio.Barrier(3)

    async def meets() -> Finding:
        await barrier.wait()
        return FINE

    found = await examine({"a": meets, "b": meets, "c": meets}, timeout_s=10)
    assert found == {"a": FINE, "b": FINE, "c": FINE}


async def test_a_check_that_raises_is_not_ready_and_its_text_stays_inside() -> None:
    async def raises() -> Finding:
        raise OSError("postgresql://paywatch:hunter2@db is away")

    found = (await examine({"database": raises}, timeout_s=10))["database"]
    assert (found.ready, found.state) == (False, "failed")
    assert "OSError" in found.message
    assert "hunter2" not in found.message

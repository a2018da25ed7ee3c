"""Heartbeats: a loop that hangs is named."""

from datetime import UTC, datetime, timedelta

import pytest

from paywatch.telemetry import Progress

START = datetime(2026, 1, 1, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_nothing_watched_is_never_stale() -> None:
    assert Progress().stale(after(1e6)) == []


def test_each_loop_has_an_allowance_of_its_own() -> None:
    progress = Progress()
    progress.watch("recover", timedelta(seconds=100), START)
    progress.watch("listen:G1", timedelta(seconds=10), START)
    assert progress.stale(after(10)) == []
    assert progress.stale(after(10.001)) == ["listen:G1"]
    assert progress.stale(after(101)) == ["listen:G1", "recover"]


def test_a_beat_starts_the_allowance_anew() -> None:
    progress = Progress()
    progress.watch("listen:G1", timedelta(seconds=10), START)
    progress.beat("listen:G1", after(8))
    assert progress.stale(after(18)) == []
    assert progress.stale(after(19)) == ["listen:G1"]


def test_a_stale_loop_that_goes_on_is_well_again() -> None:
    progress = Progress()
    progress.watch("dispatch", timedelta(seconds=10), START)
    assert progress.stale(after(60)) == ["dispatch"]
    progress.beat("dispatch", after(60))
    assert progress.stale(after(61)) == []


def test_a_loop_that_ended_on_purpose_is_forgotten() -> None:
    progress = Progress()
    progress.watch("listen:G1", timedelta(seconds=10), START)
    progress.forget("listen:G1")
    progress.forget("listen:G1")
    assert progress.stale(after(60)) == []


def test_a_beat_that_nobody_watches_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        Progress().beat("lisetn:G1", START)

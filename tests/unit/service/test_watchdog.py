"""The watchdog: which stream is live, behind or stalled, and what is done about it."""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from paywatch.domain.ledger import Position
from paywatch.service.streams import Pace, Streams
from paywatch.service.watchdog import Bounds, NothingHelps, Stand, Watchdog, judge
from paywatch.store.cursors import Cursor
from paywatch.telemetry import Metrics
from paywatch.telemetry.metrics import STREAM_STATES
from support import NOW, address

SHOP = address("shop")
LEDGER_S = 5


def s(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


@dataclass
class Tip:
    """Horizon's latest ledger; at ledger 1000 it is NOW."""

    latest: int

    @property
    def closed_at(self) -> Any:
        return NOW + s((self.latest - 1000) * LEDGER_S)


def at(ledger: int) -> Position:
    return Position.after_ledger(ledger)


@pytest.mark.parametrize(
    ("behind_s", "stood_s", "tip_moved", "pace"),
    [
        (0, 0, 0, Pace.LIVE),
        (60, 0, 0, Pace.LIVE),
        (61, 0, 0, Pace.BEHIND),
        (61, 89, 100, Pace.BEHIND),
        (61, 90, 6, Pace.STALLED),
        (61, 90, 5, Pace.BEHIND),
        (61, 90_000, 0, Pace.BEHIND),
        (0, 90_000, 0, Pace.LIVE),
        (-30, 90_000, 6, Pace.LIVE),
    ],
)
def test_a_stream_is_judged_by_the_tip_and_by_how_long_it_stands(
    behind_s: float, stood_s: float, tip_moved: int, pace: Pace
) -> None:
    tip = Tip(2000)
    stand = Stand(at(5), tip.closed_at - s(behind_s), NOW, 2000 - tip_moved)
    assert judge(stand, tip, NOW + s(stood_s), Bounds()) is pace


@pytest.mark.parametrize(("ledgers", "pace"), [(12, Pace.LIVE), (13, Pace.STALLED)])
def test_before_anything_was_read_ledgers_are_counted(ledgers: int, pace: Pace) -> None:
    stand = Stand(at(2000 - ledgers), None, NOW, 1990)
    assert judge(stand, Tip(2000), NOW + s(90), Bounds()) is pace


@dataclass
class Watch:
    """A watchdog over one stream that hangs, with clocks that the test moves."""

    streams: Streams = field(default_factory=Streams)
    metrics: Metrics = field(default_factory=Metrics)
    cursor: Cursor = field(
        default_factory=lambda: Cursor(f"live:{SHOP}", SHOP, at(1000), 0, None, NOW)
    )
    tip: Tip = field(default_factory=lambda: Tip(1000))
    now: Any = NOW

    def __post_init__(self) -> None:
        self.dog = Watchdog(self.streams, self.metrics, lambda: self.now)

    def later(self, seconds: float, *, frozen: bool = False) -> str:
        """Let that time pass, the tip moving on unless frozen, and look; give the state shown."""
        self.now += s(seconds)
        if not frozen:
            self.tip.latest += int(seconds / LEDGER_S)
        self.dog.look([self.cursor], self.tip)
        return self.shown

    def move(self, ledger: int) -> None:
        """Commit up to there."""
        through = Tip(ledger).closed_at
        self.cursor = Cursor(f"live:{SHOP}", SHOP, at(ledger), 0, None, through)

    @property
    def shown(self) -> str:
        value, name = self.metrics.registry.get_sample_value, "paywatch_stream_state"
        return next(one for one in STREAM_STATES if value(name, {"stream": SHOP, name: one}))

    @property
    def rebuilds(self) -> float:
        value = self.metrics.registry.get_sample_value
        return value("paywatch_stream_rebuilds_total", {"stream": SHOP}) or 0

    async def follow(self, says: str = "live") -> None:
        """Follow the stream until canceled, each time anew when it is cut off."""
        while True:
            self.streams.say(SHOP, says)
            await self.streams.run(SHOP, self._hang())

    async def _hang(self) -> None:
        await asyncio.Event().wait()


async def let_others_run() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
async def watch() -> Any:
    watch = Watch()
    following = asyncio.create_task(watch.follow())
    await let_others_run()
    yield watch
    following.cancel()
    await asyncio.wait({following})


async def test_lesson_13_a_stream_that_stands_while_the_tip_moves_is_begun_anew(
    watch: Watch,
) -> None:
    assert watch.later(0) == "live"
    assert watch.later(80) == "behind"
    assert watch.rebuilds == 0
    assert watch.later(10) == "stalled"
    assert watch.rebuilds == 1
    await let_others_run()
    assert watch.later(10) == "stalled", "begun anew is not yet moving"
    watch.move(watch.tip.latest)
    assert watch.later(0) == "live"


async def test_lesson_17_a_stream_that_moves_far_from_the_tip_is_behind_not_stalled(
    watch: Watch,
) -> None:
    watch.tip = Tip(50_000)
    for ledger in range(1001, 1100):
        watch.move(ledger)
        assert watch.later(60) == "behind"
    assert watch.rebuilds == 0


async def test_lesson_17_a_tip_that_does_not_move_is_upstreams_matter(watch: Watch) -> None:
    for _ in range(100):
        assert watch.later(60, frozen=True) == "live"
    watch.move(900)
    for _ in range(100):
        assert watch.later(60, frozen=True) == "behind"
    assert watch.rebuilds == 0


async def test_a_stream_that_we_stand_by_for_is_its_leaders_matter(watch: Watch) -> None:
    watch.streams.say("other", "standby")
    for _ in range(10):
        watch.now += s(600)
        watch.tip.latest += 100
        watch.dog.look([Cursor("live:other", "other", at(3), 0, None, NOW)], watch.tip)
    assert watch.streams.shown["other"] == "standby"


async def test_when_beginning_anew_does_not_help_the_process_ends(watch: Watch) -> None:
    watch.later(0)
    for time in (1, 2, 3):
        assert watch.later(95) == "stalled"
        assert watch.rebuilds == time
        await let_others_run()
    with pytest.raises(NothingHelps, match="stands still at ledger 1000 while Horizon went on"):
        watch.later(95)


async def test_a_stream_that_moved_again_is_given_its_rebuilds_again(watch: Watch) -> None:
    watch.later(0)
    for _ in range(5):
        watch.later(95)
        await let_others_run()
        watch.move(watch.tip.latest)
        assert watch.later(0) == "live"
    assert watch.rebuilds == 5


async def test_pages_that_fail_while_the_root_moves_end_no_process() -> None:
    """The reader says that it cannot read: a restart would read the same pages."""
    watch = Watch()
    following = asyncio.create_task(watch.follow(says="retrying"))
    await let_others_run()
    assert watch.later(0) == "retrying"
    for _ in range(20):
        watch.later(95)
        await let_others_run()
    assert watch.shown == "stalled"
    assert watch.rebuilds == 3, "its own memory may have been what was wrong; but not for ever"
    following.cancel()
    await asyncio.wait({following})


async def test_a_look_before_the_follower_has_said_anything_does_not_crash() -> None:
    """The gauges looked while the first claim of the cursor was on its way."""
    watch = Watch()
    running = asyncio.create_task(watch.streams.run(SHOP, asyncio.Event().wait()))  # type: ignore[arg-type]
    await let_others_run()
    assert watch.later(0) == "catching_up"
    running.cancel()
    await asyncio.wait({running})


async def test_what_does_not_let_itself_be_cut_off_holds_up_nobody() -> None:
    streams, refused = Streams(letting_go_s=0.01), asyncio.Event()

    async def clings() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            refused.set()
            await asyncio.Event().wait()

    running = asyncio.create_task(streams.run(SHOP, clings()))
    await let_others_run()
    streams.rebuild(SHOP)
    async with asyncio.timeout(10):
        await running
    assert refused.is_set()
    assert streams.followed == frozenset()


async def test_what_a_following_raises_is_raised_and_a_stop_reaches_it() -> None:
    streams = Streams()

    async def fails() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await streams.run(SHOP, fails())
    ended = asyncio.Event()

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    running = asyncio.create_task(streams.run(SHOP, waits()))
    await let_others_run()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended.is_set()

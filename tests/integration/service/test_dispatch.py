import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Self
from uuid import UUID, uuid4

import psycopg
import pytest
from aiohttp import web
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from standardwebhooks import Webhook
from structlog.contextvars import get_contextvars
from structlog.testing import capture_logs

from paywatch.domain.delivery import SCHEDULE, Answer, Failure
from paywatch.service.attempts import Dispatched, Recorder
from paywatch.service.dispatch import Dispatcher, Limits
from paywatch.store import outbox
from paywatch.store.engine import create_engine, sqlalchemy_url
from paywatch.store.invariants import find_violations
from paywatch.store.outbox import Claimed, Room
from paywatch.telemetry import Metrics
from paywatch.webhooks import sender as webhook_sender
from paywatch.webhooks.guard import Policy
from paywatch.webhooks.sealing import Vault
from paywatch.webhooks.signing import sign
from support.outbox import Told, attempts, deliveries, enqueue, merchant, rows
from support.servers import Servers
from support.statements import watched_statements

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
OK = Answer(status=200, excerpt=b"thanks", duration_s=0.25)
VAULT = Vault(b"k" * 32)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def move(self, by: timedelta) -> None:
        self.now += by


@dataclass
class Post:
    """One POST that left the house."""

    url: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class World:
    """The merchants' servers: remembers what came, and answers by `answer`."""

    answer: Callable[[Post], Awaitable[Answer]]
    posts: list[Post] = field(default_factory=list)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        post = Post(url, headers, body)
        self.posts.append(post)
        return await self.answer(post)


def answering(*answers: Answer) -> World:
    """A world that gives these answers, one after the other, and the last one for ever."""
    left = list(answers)

    async def answer(_: Post) -> Answer:
        return left.pop(0) if len(left) > 1 else left[0]

    return World(answer)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def shop(engine: AsyncEngine) -> Told:
    return await merchant(engine, VAULT, "https://shop.example/hook", START)


def dispatcher(
    engine: AsyncEngine, world: World, clock: Clock, limits: Limits | None = None, seed: int = 1
) -> Dispatcher:
    rng = Random(seed)
    metrics = Metrics()
    return Dispatcher(engine, world, VAULT, sign, metrics, clock, rng, limits or Limits())


async def test_a_delivery_is_signed_posted_and_recorded(
    engine: AsyncEngine, shop: Told, clock: Clock
) -> None:
    payload = b'{"type":"checkout.session.paid","data":{}}'
    [event_id] = await enqueue(engine, shop, START, payload=payload)
    world = answering(OK)
    dispatch = dispatcher(engine, world, clock)

    assert await dispatch.run_once() == Dispatched(delivered=1)

    [post] = world.posts
    assert (post.url, post.body) == (shop.url, payload)
    assert post.headers == sign([shop.secret], str(event_id), START, payload)
    [row] = await deliveries(engine)
    assert (row["state"], row["ended_at"], row["attempts_made"]) == ("delivered", START, 1)
    assert (row["lease_token"], row["lease_until"]) == (None, None)
    [attempt] = await attempts(engine)
    assert attempt == {
        "event_id": event_id,
        "endpoint_id": shop.endpoint_id,
        "number": 1,
        "started_at": START,
        "duration_ms": 250,
        "status_code": 200,
        "error": None,
        "answer": b"thanks",
    }
    value = dispatch.metrics.registry.get_sample_value
    assert value("paywatch_attempts_total", {"result": "delivered"}) == 1
    assert value("paywatch_attempt_duration_seconds_sum") == 0.25

    assert await dispatch.run_once() == Dispatched()
    assert len(world.posts) == 1


@pytest.mark.parametrize("status", [200, 503, 410])
async def test_what_is_logged_of_an_attempt_names_its_session_and_event(
    engine: AsyncEngine, shop: Told, clock: Clock, status: int
) -> None:
    [event_id] = await enqueue(engine, shop, START)
    [[session_id]] = [row.values() for row in await rows(engine, "SELECT subject FROM events")]
    bound: list[dict[str, object]] = []

    async def answer(_: Post) -> Answer:
        bound.append(get_contextvars())
        return Answer(status=status)

    with capture_logs() as logs:
        await dispatcher(engine, World(answer), clock).run_once()
    ids = {"session_id": str(session_id), "event_id": str(event_id)}
    assert bound == [ids]
    assert get_contextvars() == {}
    [line] = logs
    [told] = line.get("deliveries", [line])
    assert ids.items() <= told.items()
    assert told["endpoint_id"] == str(shop.endpoint_id)


async def test_what_is_delivered_together_is_one_line_that_is_not_too_long(
    engine: AsyncEngine, shop: Told, clock: Clock
) -> None:
    expected = {str(id_) for id_ in await enqueue(engine, shop, START, count=110)}
    limits = Limits(per_endpoint=110)
    with capture_logs() as logs:
        await dispatcher(engine, answering(OK), clock, limits).run_once()
    lines = [[told["event_id"] for told in line["deliveries"]] for line in logs]
    assert [len(line) for line in lines] == [100, 10]
    assert {event_id for line in lines for event_id in line} == expected


async def test_over_a_real_socket_the_official_verifier_accepts_it(engine: AsyncEngine) -> None:
    received: list[tuple[dict[str, str], bytes]] = []

    async def answer(request: web.Request) -> web.Response:
        received.append((dict(request.headers), await request.read()))
        return web.Response()

    async with AsyncExitStack() as stack:
        url = await Servers(stack).http(answer)
        told = await merchant(engine, VAULT, url, START)
        [event_id] = await enqueue(engine, told, START, payload=b'{"type":"t"}')
        sender = await stack.enter_async_context(webhook_sender.Sender(Policy(allow_private=True)))
        rng, clock = Random(1), lambda: datetime.now(UTC)
        await Dispatcher(engine, sender, VAULT, sign, Metrics(), clock, rng).run_once()
    [(headers, body)] = received
    assert Webhook(told.secret).verify(body, headers) == {"type": "t"}
    assert headers["webhook-id"] == str(event_id)


async def test_nothing_is_in_a_transaction_while_a_post_is_under_way(
    engine: AsyncEngine, shop: Told, clock: Clock
) -> None:
    await enqueue(engine, shop, START)
    open_ones: list[object] = []

    async def answer(_: Post) -> Answer:
        open_ones.extend(
            await rows(
                engine,
                "SELECT state FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() AND state LIKE '%in transaction%'",
            )
        )
        return OK

    await dispatcher(engine, World(answer), clock).run_once()
    assert open_ones == []


async def test_lesson_14_a_failure_is_tried_again_by_the_schedule_with_the_same_id(
    engine: AsyncEngine, shop: Told, clock: Clock
) -> None:
    [event_id] = await enqueue(engine, shop, START)
    world = answering(Answer(failure=Failure.DNS, detail="no such name"), Answer(status=503), OK)

    assert await dispatcher(engine, world, clock).run_once() == Dispatched(retry=1)
    [row] = await deliveries(engine)
    assert timedelta(seconds=4) <= row["due_at"] - START <= timedelta(seconds=6)
    clock.now = row["due_at"] - timedelta(microseconds=1)
    assert await dispatcher(engine, world, clock).run_once() == Dispatched(), "not due yet"

    clock.now = row["due_at"]
    # As after a restart: nothing is remembered but by the database.
    assert await dispatcher(engine, world, clock, seed=2).run_once() == Dispatched(retry=1)
    clock.move(timedelta(minutes=6))
    assert await dispatcher(engine, world, clock, seed=3).run_once() == Dispatched(delivered=1)

    assert {post.headers["webhook-id"] for post in world.posts} == {str(event_id)}
    assert len({post.headers["webhook-timestamp"] for post in world.posts}) == 3
    assert [
        (row["number"], row["status_code"], row["error"]) for row in await attempts(engine)
    ] == [(1, None, "dns: no such name"), (2, 503, None), (3, 200, None)]


async def test_a_200_whose_body_breaks_is_a_failure_that_breaks_no_invariant(
    engine: AsyncEngine, shop: Told, clock: Clock
) -> None:
    await enqueue(engine, shop, START)
    world = answering(Answer(status=200, failure=Failure.BROKEN, detail="cut"), OK)
    assert await dispatcher(engine, world, clock).run_once() == Dispatched(retry=1)
    async with engine.begin() as conn:
        assert await find_violations(conn, clock()) == []
    clock.move(timedelta(seconds=6))
    assert await dispatcher(engine, world, clock).run_once() == Dispatched(delivered=1)


async def test_ten_failures_end_in_a_visible_dead_letter(
    engine: AsyncEngine, shop: Told, clock: Clock
) -> None:
    [event_id] = await enqueue(engine, shop, START)
    world = answering(Answer(status=404))
    dispatch = dispatcher(engine, world, clock)
    for delay in SCHEDULE[1:]:
        assert await dispatch.run_once() == Dispatched(retry=1)
        clock.move(delay * 1.2)
    assert await dispatch.run_once() == Dispatched(dead=1)
    clock.move(timedelta(days=30))
    assert await dispatch.run_once() == Dispatched()
    assert len(world.posts) == len(await attempts(engine)) == 10
    async with engine.connect() as conn:
        assert (await outbox.depth(conn, clock.now)).dead == 1
    [letter] = await deliveries(engine)
    assert (letter["event_id"], letter["state"], letter["attempts_made"]) == (event_id, "dead", 10)
    assert letter["dead_reason"] == "attempt 10 of 10 failed: status 404"


async def test_410_disables_the_endpoint_and_buries_what_waits_for_it(
    engine: AsyncEngine, shop: Told, clock: Clock
) -> None:
    other = await merchant(engine, VAULT, "https://other.example/hook", START)
    await enqueue(engine, shop, START, count=3)
    await enqueue(engine, other, START + timedelta(hours=1))
    world = answering(Answer(status=410))
    limits = Limits(per_endpoint=1)
    assert await dispatcher(engine, world, clock, limits).run_once() == Dispatched(gone=1)

    mine = [row for row in await deliveries(engine) if row["endpoint_id"] == shop.endpoint_id]
    assert {row["state"] for row in mine} == {"dead"}
    assert sorted(row["dead_reason"] for row in mine) == [
        "endpoint disabled: the endpoint answered 410 Gone",
        "endpoint disabled: the endpoint answered 410 Gone",
        "the endpoint answered 410 Gone",
    ]
    [endpoint] = await rows(engine, "SELECT * FROM endpoints WHERE id = :id", id=shop.endpoint_id)
    assert endpoint["disabled_at"] == START
    assert endpoint["disabled_reason"] == "the endpoint answered 410 Gone"
    [others] = [row for row in await deliveries(engine) if row["endpoint_id"] == other.endpoint_id]
    assert others["state"] == "pending"

    await enqueue(engine, shop, START)
    mine = [row for row in await deliveries(engine) if row["endpoint_id"] == shop.endpoint_id]
    assert [row["state"] for row in mine] == ["dead"] * 4, "kept for when it is enabled"
    assert len(world.posts) == 1


async def test_what_was_enqueued_while_its_endpoint_was_disabled_is_not_sent_but_buried(
    engine: AsyncEngine, shop: Told, clock: Clock
) -> None:
    [event_id] = await enqueue(engine, shop, START)
    async with engine.begin() as conn:
        await outbox.disable(conn, {shop.endpoint_id: "by the operator"}, START)
    world = answering(OK)
    assert await dispatcher(engine, world, clock).run_once() == Dispatched()
    async with engine.begin() as conn:
        assert await outbox.bury(conn, START) == [(event_id, shop.endpoint_id)]
        assert await outbox.bury(conn, START) == []
    [row] = await deliveries(engine)
    assert (row["state"], row["dead_reason"]) == ("dead", "endpoint disabled: by the operator")


async def test_a_secret_that_does_not_open_sends_nothing_and_is_tried_again(
    engine: AsyncEngine, clock: Clock
) -> None:
    told = await merchant(engine, Vault(b"x" * 32), "https://shop.example/hook", START)
    await enqueue(engine, told, START)
    world = answering(OK)
    assert await dispatcher(engine, world, clock).run_once() == Dispatched(retry=1)
    assert world.posts == []
    [attempt] = await attempts(engine)
    assert attempt["error"].startswith("sealed: ")
    assert "PAYWATCH_SECRET_KEY" in attempt["error"]


async def test_a_late_result_of_a_lost_lease_is_recorded_nowhere(
    engine: AsyncEngine, shop: Told, clock: Clock
) -> None:
    await enqueue(engine, shop, START)
    second = dispatcher(engine, answering(OK), clock, seed=2)

    async def answer(_: Post) -> Answer:
        """While the first one waits for its answer, its lease ends and another one delivers."""
        clock.move(Limits().lease - timedelta(seconds=1))
        assert await second.run_once() == Dispatched(), "the lease still holds"
        clock.move(timedelta(seconds=1))
        assert await second.run_once() == Dispatched(delivered=1)
        return Answer(status=500)

    first = dispatcher(engine, World(answer), clock)
    with capture_logs() as logs:
        assert await first.run_once() == Dispatched(lost=1)
    assert "delivery_lost" in {entry["event"] for entry in logs}
    [row] = await deliveries(engine)
    assert (row["state"], row["attempts_made"]) == ("delivered", 1)
    [attempt] = await attempts(engine)
    assert attempt["status_code"] == 200
    value = first.metrics.registry.get_sample_value
    assert value("paywatch_attempts_total", {"result": "retry"}) == 0


async def test_a_late_410_of_a_lost_lease_disables_nothing(
    engine: AsyncEngine, shop: Told, clock: Clock
) -> None:
    await enqueue(engine, shop, START)
    second = dispatcher(engine, answering(OK), clock, seed=2)

    async def answer(_: Post) -> Answer:
        clock.move(Limits().lease)
        await second.run_once()
        return Answer(status=410)

    assert await dispatcher(engine, World(answer), clock).run_once() == Dispatched(lost=1)
    [endpoint] = await rows(engine, "SELECT disabled_at FROM endpoints")
    assert endpoint["disabled_at"] is None


async def test_a_released_lease_is_claimed_again_at_once(
    engine: AsyncEngine, shop: Told, clock: Clock
) -> None:
    [event_id] = await enqueue(engine, shop, START)
    async with engine.begin() as conn:
        room = outbox.Room(10, 10)
        await outbox.claim(conn, room, UUID(int=1), START, timedelta(seconds=60))
        before = START + timedelta(seconds=59)
        assert await outbox.release_dead_leases(conn, before) == []
        clock.move(timedelta(seconds=60))
        key = (event_id, shop.endpoint_id)
        assert await outbox.release_dead_leases(conn, clock.now) == [key]
    assert await dispatcher(engine, answering(OK), clock).run_once() == Dispatched(delivered=1)


async def test_only_a_claim_is_committed_without_waiting_for_the_disk(
    engine: AsyncEngine, shop: Told, clock: Clock
) -> None:
    """A lease that a crash of the server forgets is a POST more; an attempt must not be."""

    async def waits(conn: AsyncConnection) -> str:
        found: str = (await conn.execute(text("SHOW synchronous_commit"))).scalar_one()
        return found

    await enqueue(engine, shop, START)
    async with engine.begin() as conn:
        room, lease = Room(10, 10), timedelta(seconds=60)
        [claimed] = await outbox.claim(conn, room, UUID(int=1), START, lease)
        assert await waits(conn) == "off"
    made = await dispatcher(engine, answering(OK), clock)._attempt(claimed)
    async with engine.begin() as conn:
        await outbox.record(conn, [made], START)
        assert await waits(conn) == "on"


async def test_recording_again_after_an_unanswered_commit_changes_nothing(
    engine: AsyncEngine, shop: Told, clock: Clock
) -> None:
    [event_id] = await enqueue(engine, shop, START)
    async with engine.begin() as conn:
        [claimed] = await outbox.claim(
            conn, outbox.Room(10, 10), UUID(int=1), START, timedelta(seconds=60)
        )
    dispatch = dispatcher(engine, answering(Answer(status=500)), clock)
    made = await dispatch._attempt(claimed)
    for _ in range(2):
        async with engine.begin() as conn:
            recorded = await outbox.record(conn, [made], START)
        assert recorded == {(event_id, shop.endpoint_id, UUID(int=1))}
    assert len(await attempts(engine)) == 1
    async with engine.begin() as conn:
        stranger = replace(made, started_at=START + timedelta(seconds=1))
        assert await outbox.record(conn, [stranger], START) == set()


async def test_of_two_attempts_at_one_delivery_only_that_of_the_living_lease_is_recorded(
    engine: AsyncEngine, shop: Told, clock: Clock
) -> None:
    """A dispatcher that could not record for longer than a lease claims its own again."""
    await enqueue(engine, shop, START)
    dispatch = dispatcher(engine, answering(Answer(status=500), OK), clock)
    made = []
    for number in (1, 2):
        async with engine.begin() as conn:
            token, lease = UUID(int=number), timedelta(seconds=60)
            [claimed] = await outbox.claim(conn, outbox.Room(10, 10), token, clock.now, lease)
        made.append(await dispatch._attempt(claimed))
        clock.move(timedelta(seconds=60))
    assert await dispatch._recorder.record(made) == Dispatched(delivered=1, lost=1)
    [attempt] = await attempts(engine)
    assert attempt["status_code"] == 200


async def test_an_answer_that_cannot_be_stored_does_not_cost_the_verdict(
    engine: AsyncEngine, shop: Told, clock: Clock
) -> None:
    await enqueue(engine, shop, START, count=2)
    world = answering(replace(OK, excerpt=b"x" * 5000), OK)  # the table takes 4096
    with capture_logs() as logs:
        result = await dispatcher(engine, world, clock).run_once()
    assert result == Dispatched(delivered=2)
    assert "answers_not_recordable" in {entry["event"] for entry in logs}
    recorded = [(row["status_code"], row["answer"]) for row in await attempts(engine)]
    assert recorded == [(200, b""), (200, b"")]


async def test_lesson_4_dispatchers_share_the_work_and_post_nothing_twice(
    engine: AsyncEngine, database_url: str, clock: Clock
) -> None:
    shops = [await merchant(engine, VAULT, f"https://{n}.example/", START) for n in range(10)]
    expected = set()
    for told in shops:
        expected |= {str(id_) for id_ in await enqueue(engine, told, START, count=20)}
    world = answering(OK)
    other_engine = create_engine(database_url)
    limits = Limits(in_flight=30, per_endpoint=5)
    try:
        both = [
            dispatcher(engine, world, clock, limits),
            dispatcher(other_engine, world, clock, limits, seed=2),
        ]
        with capture_logs() as logs:
            rounds = [Dispatched(delivered=1)]
            while rounds != [Dispatched()] * 2:
                rounds = await asyncio.gather(*(dispatch.run_once() for dispatch in both))
    finally:
        await other_engine.dispose()
    ids = [post.headers["webhook-id"] for post in world.posts]
    assert len(ids) == len(set(ids))
    assert set(ids) == expected
    assert "database_retry" not in {entry["event"] for entry in logs}, "they do not wait either"


async def test_at_most_its_share_is_in_flight_at_one_endpoint(
    engine: AsyncEngine, shop: Told, clock: Clock
) -> None:
    await enqueue(engine, shop, START, count=50)
    limits = Limits(per_endpoint=5)
    counts: list[int] = []

    async def answer(_: Post) -> Answer:
        counts.append((await dispatcher(engine, answering(OK), clock, limits).run_once()).delivered)
        return OK

    result = await dispatcher(engine, World(answer), clock, limits).run_once()
    assert result == Dispatched(delivered=5)
    assert set(counts) == {0}, "what another dispatcher has in flight counts, too"


async def test_who_has_least_in_flight_is_served_first(engine: AsyncEngine, clock: Clock) -> None:
    busy = [await merchant(engine, VAULT, f"https://busy{n}.example/", START) for n in range(2)]
    for told in busy:
        await enqueue(engine, told, START - timedelta(hours=1), count=30)
    quiet = await merchant(engine, VAULT, "https://quiet.example/", START)
    await enqueue(engine, quiet, START)
    world = answering(OK)
    await dispatcher(engine, world, clock, Limits(in_flight=6, per_endpoint=5)).run_once()
    assert len(world.posts) == 6
    assert quiet.url in {post.url for post in world.posts}


async def test_what_is_in_flight_counts_when_the_least_busy_is_sought(
    engine: AsyncEngine, clock: Clock
) -> None:
    busy = await merchant(engine, VAULT, "https://busy.example/", START)
    quiet = await merchant(engine, VAULT, "https://quiet.example/", START)
    await enqueue(engine, busy, START - timedelta(hours=1), count=5)
    inner = answering(OK)

    async def answer(_: Post) -> Answer:
        await enqueue(engine, quiet, START)
        await dispatcher(engine, inner, clock, Limits(in_flight=1), seed=2).run_once()
        return OK

    await dispatcher(engine, World(answer), clock, Limits(in_flight=1)).run_once()
    assert [post.url for post in inner.posts] == [quiet.url], "though others are due for longer"


class Running:
    """A dispatcher's loop in a task of its own."""

    def __init__(self, dispatch: Dispatcher) -> None:
        self._dispatch = dispatch
        self._stop = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._dispatch.run(self._stop))
        return self

    async def __aexit__(self, error: object, *_: object) -> None:
        if error is None:
            self.ask_to_stop()
            await self._task
        self._task.cancel()

    async def until(self, done: asyncio.Event) -> None:
        """Wait for a signal, or for the loop's failure."""
        waiting = asyncio.create_task(done.wait())
        await asyncio.wait([waiting, self._task], return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            await self._task

    def ask_to_stop(self) -> None:
        self._stop.set()
        self._dispatch.wake()


PATIENT = Limits(poll_s=3600)


async def test_a_dead_endpoint_delays_no_other_merchant(engine: AsyncEngine, clock: Clock) -> None:
    dead = await merchant(engine, VAULT, "https://dead.example/", START)
    await enqueue(engine, dead, START - timedelta(hours=1), count=2000)
    others = [await merchant(engine, VAULT, f"https://{n}.example/", START) for n in range(30)]
    for told in others:
        await enqueue(engine, told, START, count=4)
    let_go, others_served = asyncio.Event(), asyncio.Event()
    served: list[Post] = []

    async def answer(post: Post) -> Answer:
        if post.url == dead.url:
            await let_go.wait()
            return Answer(failure=Failure.TIMEOUT)
        served.append(post)
        if len(served) == 120:
            others_served.set()
        return OK

    world = World(answer)
    limits = replace(PATIENT, in_flight=40, per_endpoint=8)
    async with Running(dispatcher(engine, world, clock, limits)) as running:
        await running.until(others_served)
        assert 1 <= sum(post.url == dead.url for post in world.posts) <= 8
        running.ask_to_stop()
        let_go.set()
    assert len({post.headers["webhook-id"] for post in served}) == 120
    states = await rows(
        engine,
        "SELECT endpoint_id = :dead AS dead, state, count(*) FROM deliveries GROUP BY 1, 2",
        dead=dead.endpoint_id,
    )
    assert {"dead": False, "state": "delivered", "count": 120} in states
    assert {"dead": True, "state": "pending", "count": 2000} in states
    assert len(await rows(engine, "SELECT 1 FROM deliveries WHERE lease_token IS NOT NULL")) == 0


async def test_an_endpoint_that_is_only_slow_does_not_make_our_dispatcher_late(
    engine: AsyncEngine, clock: Clock
) -> None:
    """`PaywatchOutboxOld` paged for whoever was the most overdue of all."""

    async def oldest() -> datetime | None:
        async with engine.connect() as conn:
            return (await outbox.depth(conn, clock.now)).oldest_due_at

    slow = await merchant(engine, VAULT, "https://slow.example/", clock.now)
    await enqueue(engine, slow, clock.now, count=3)
    since = clock.now
    clock.now += timedelta(hours=1)
    assert await oldest() == since, "nobody makes them"
    room, token = Room(1, 1), uuid4()
    async with engine.begin() as conn:
        await outbox.claim(conn, room, token, clock.now, timedelta(seconds=30))
    assert await oldest() is None, "two more are due, and one is in flight"
    other = await merchant(engine, VAULT, "https://other.example/", clock.now)
    await enqueue(engine, other, clock.now)
    assert await oldest() == clock.now, "and nobody is about that one"
    clock.now += timedelta(seconds=31)
    assert await oldest() == since, "whoever had the lease has gone"
    async with engine.begin() as conn:
        await outbox.release_dead_leases(conn, clock.now)
        await outbox.disable(conn, {slow.endpoint_id: "gone"}, clock.now)
    assert await oldest() == clock.now - timedelta(seconds=31)


async def test_hundreds_are_in_flight_on_one_loop(engine: AsyncEngine, clock: Clock) -> None:
    for n in range(20):
        told = await merchant(engine, VAULT, f"https://{n}.example/", START)
        await enqueue(engine, told, START, count=15)
    all_here = asyncio.Event()
    world = answering(OK)

    async def answer(_: Post) -> Answer:
        if len(world.posts) == 300:
            all_here.set()
        await all_here.wait()
        return OK

    world.answer = answer
    async with Running(dispatcher(engine, world, clock, PATIENT)) as running:
        await running.until(all_here)
    assert {row["state"] for row in await deliveries(engine)} == {"delivered"}


async def test_no_more_are_in_flight_than_there_are_slots(
    engine: AsyncEngine, clock: Clock
) -> None:
    for n in range(12):
        told = await merchant(engine, VAULT, f"https://{n}.example/", START)
        await enqueue(engine, told, START)
    in_flight = 0
    most = 0
    full, let_go, all_done = asyncio.Event(), asyncio.Event(), asyncio.Event()
    world = answering(OK)

    async def answer(_: Post) -> Answer:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        if in_flight == 3:
            full.set()
        await let_go.wait()
        in_flight -= 1
        if len(world.posts) == 12:
            all_done.set()
        return OK

    world.answer = answer
    dispatch = dispatcher(engine, world, clock, replace(PATIENT, in_flight=3))
    rounds = asyncio.Semaphore(0)
    dispatch.beat = rounds.release
    async with Running(dispatch) as running:
        await running.until(full)
        for _ in range(3):  # rounds without a free slot
            await rounds.acquire()
            dispatch.wake()
        let_go.set()
        await running.until(all_done)
    assert most == 3


async def test_it_is_woken_by_what_is_told_and_by_what_is_done(
    engine: AsyncEngine, shop: Told, clock: Clock
) -> None:
    """With a poll of an hour, only signals can do this: ten at a time, one at a time in flight."""
    done = asyncio.Event()
    world = answering(OK)

    async def answer(_: Post) -> Answer:
        if len(world.posts) == 10:
            done.set()
        return OK

    world.answer = answer
    dispatch = dispatcher(engine, world, clock, replace(PATIENT, per_endpoint=1))
    beats: list[datetime] = []
    idle = asyncio.Event()

    def beat() -> None:
        beats.append(clock.now)
        idle.set()

    dispatch.beat = beat
    async with Running(dispatch) as running:
        await running.until(idle)
        await enqueue(engine, shop, START, count=10)
        dispatch.wake()
        await running.until(done)
    assert len(beats) >= 10
    assert {row["state"] for row in await deliveries(engine)} == {"delivered"}


async def test_a_graceful_stop_finishes_what_is_in_flight_and_claims_no_more(
    engine: AsyncEngine, shop: Told, clock: Clock
) -> None:
    await enqueue(engine, shop, START, count=3)
    arrived, let_go = asyncio.Event(), asyncio.Event()

    async def answer(_: Post) -> Answer:
        arrived.set()
        await let_go.wait()
        return OK

    dispatch = dispatcher(engine, World(answer), clock, replace(PATIENT, per_endpoint=1))
    async with Running(dispatch) as running:
        await running.until(arrived)
        running.ask_to_stop()
        let_go.set()
    states = [row["state"] for row in await deliveries(engine)]
    assert sorted(states) == ["delivered", "pending", "pending"]


async def test_what_a_claim_brings_behind_the_stop_is_recorded_although_nothing_else_is_in_flight(
    engine: AsyncEngine, shop: Told, clock: Clock
) -> None:
    await enqueue(engine, shop, START)
    claimed, let_go, recorded = asyncio.Event(), asyncio.Event(), asyncio.Event()
    claim, record = outbox.claim, Recorder.record

    async def claim_slowly(*args: Any) -> list[Claimed]:
        found = await claim(*args)
        if world.posts:  # the first one's answer waits for it
            claimed.set()
            await let_go.wait()
        return found

    async def record_loudly(recorder: Recorder, *args: Any) -> Dispatched:
        came = await record(recorder, *args)
        if came.delivered:
            recorded.set()
        return came

    async def answer(post: Post) -> Answer:
        if post is world.posts[0]:
            await enqueue(engine, shop, START)
            dispatch.wake()
            await claimed.wait()
        return OK

    world = World(answer)
    dispatch = dispatcher(engine, world, clock, PATIENT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox, "claim", claim_slowly)
        patch.setattr(Recorder, "record", record_loudly)
        async with Running(dispatch) as running:
            await running.until(claimed)
            running.ask_to_stop()
            await running.until(recorded)
            let_go.set()
    assert [row["state"] for row in await deliveries(engine)] == ["delivered", "delivered"]


async def test_a_dispatcher_that_waits_for_its_database_has_not_hung(clock: Clock) -> None:
    engine, beats = create_engine("postgresql://nobody@127.0.0.1:9/nothing"), asyncio.Event()
    waiting = replace(dispatcher(engine, answering(OK), clock), beat=beats.set)
    running = asyncio.create_task(waiting.run(asyncio.Event()))
    async with asyncio.timeout(10):
        await beats.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await engine.dispose()


async def test_results_that_end_together_are_recorded_together(
    engine: AsyncEngine, shop: Told, clock: Clock
) -> None:
    await enqueue(engine, shop, START, count=30)
    all_here = asyncio.Event()
    world = answering(OK)

    async def answer(_: Post) -> Answer:
        if len(world.posts) == 30:
            all_here.set()
        await all_here.wait()
        return OK

    world.answer = answer
    with watched_statements() as statements:
        async with Running(dispatcher(engine, world, clock, PATIENT)) as running:
            await running.until(all_here)
    recordings = [sql for sql in statements if "INSERT INTO attempts" in sql]
    assert len(await attempts(engine)) == 30
    assert 1 <= len(recordings) <= 2


async def test_an_attempt_is_recorded_although_most_of_the_others_hang(
    engine: AsyncEngine, shop: Told, clock: Clock
) -> None:
    """It waits for company, but not for long."""
    await enqueue(engine, shop, START, count=30)
    recording, world = asyncio.Event(), answering(OK)

    async def answer(_: Post) -> Answer:
        if len(world.posts) > 1:
            await recording.wait()
        return OK

    def note(sql: str, _values: object) -> None:
        if "INSERT INTO attempts" in sql:
            recording.set()

    world.answer = answer
    with watched_statements(note):
        async with Running(dispatcher(engine, world, clock, PATIENT)) as running:
            await running.until(recording)
    assert len(await attempts(engine)) == 30


async def test_what_has_ended_is_recorded_when_it_is_a_quarter_of_what_is_in_flight(
    engine: AsyncEngine, shop: Told, clock: Clock
) -> None:
    await enqueue(engine, shop, START, count=32)
    turns = [asyncio.Event() for _ in range(32)]
    world, sizes, recording = answering(OK), list[int](), asyncio.Event()

    async def answer(_: Post) -> Answer:
        number = len(world.posts)  # from 1
        if number == 32:
            turns[0].set()
        await turns[number - 1].wait()
        if number < 8:
            turns[number].set()
        return OK

    def note(sql: str, values: Mapping[str, str]) -> None:
        if "INSERT INTO attempts" in sql:
            sizes.append(len(json.loads(values["rows"])))
            recording.set()

    world.answer = answer
    limits = replace(PATIENT, gather_s=3600)
    with watched_statements(note):
        async with Running(dispatcher(engine, world, clock, limits)) as running:
            await running.until(recording)
            for turn in turns:
                turn.set()
    assert sizes[0] == 8, "they ended one after the other"
    assert sum(sizes) == len(await attempts(engine)) == 32


async def test_a_backlog_takes_few_transactions_and_ends_without_an_empty_claim(
    engine: AsyncEngine, clock: Clock
) -> None:
    """What a claim has left is claimed when there is room for many; what it has not, never."""
    for n in range(10):
        told = await merchant(engine, VAULT, f"https://{n}.example/", START)
        await enqueue(engine, told, START, count=25)
    all_made, world = asyncio.Event(), answering(OK)

    async def answer(_: Post) -> Answer:
        if len(world.posts) == 250:
            all_made.set()
        return OK

    world.answer = answer
    limits = replace(PATIENT, in_flight=60, per_endpoint=10)
    with watched_statements() as statements:
        async with Running(dispatcher(engine, world, clock, limits)) as running:
            await running.until(all_made)
    assert len(await attempts(engine)) == 250
    claims = [sql for sql in statements if "WITH RECURSIVE waiting" in sql]
    recordings = [sql for sql in statements if "INSERT INTO attempts" in sql]
    assert len(claims) <= 5, "60, 60, 60, 60 and 10"
    assert len(recordings) <= 6


async def test_what_an_endpoint_had_no_place_for_is_claimed_when_one_is_free_whatever_was_between(
    engine: AsyncEngine, shop: Told, clock: Clock
) -> None:
    """A claim for another endpoint, or for nobody, says nothing of the one that is full."""
    other = await merchant(engine, VAULT, "https://other.example/", START)
    await enqueue(engine, shop, START, count=4)
    arrived, let_go, told, all_made = (asyncio.Event() for _ in range(4))
    world = answering(OK)

    async def answer(post: Post) -> Answer:
        if post.url == other.url:
            told.set()
            return OK
        arrived.set()
        await let_go.wait()
        if len(world.posts) == 5:
            all_made.set()
        return OK

    world.answer = answer
    dispatch = dispatcher(engine, world, clock, replace(PATIENT, per_endpoint=2))
    rounds = asyncio.Semaphore(0)
    dispatch.beat = rounds.release
    async with Running(dispatch) as running:
        await running.until(arrived)
        await enqueue(engine, other, START)
        dispatch.wake()
        await running.until(told)
        for _ in range(2):  # and one that finds nothing
            await rounds.acquire()
        dispatch.wake()
        await rounds.acquire()
        let_go.set()
        await running.until(all_made)
    assert {row["state"] for row in await deliveries(engine)} == {"delivered"}


@pytest.mark.parametrize(
    ("limits", "wakes"),
    [
        (replace(PATIENT, in_flight=5, per_endpoint=5), 1),
        (replace(PATIENT, in_flight=4, per_endpoint=5), 2),
        (replace(PATIENT, in_flight=5, per_endpoint=4), 2),
    ],
    ids=["room left", "no slot left", "its share taken"],
)
async def test_it_looks_for_more_only_if_the_last_claim_has_used_up_its_room(
    engine: AsyncEngine, shop: Told, clock: Clock, limits: Limits, wakes: int
) -> None:
    await enqueue(engine, shop, START, count=4)
    posted, woken = asyncio.Event(), list[str]()

    async def answer(_: Post) -> Answer:
        posted.set()
        return OK

    dispatch = dispatcher(engine, World(answer), clock, limits)
    wake = dispatch.wake

    def spy() -> None:
        woken.append("woken")
        wake()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "wake", spy)
        async with Running(dispatch) as running:
            await running.until(posted)  # all four end in the same moment
    assert len(woken) == wakes, "the stop, and one for the recording"


@pytest.mark.parametrize("answer", [Answer(status=500), Answer(status=410)], ids=["500", "410"])
async def test_the_number_of_statements_does_not_depend_on_the_number_of_deliveries(
    engine: AsyncEngine, clock: Clock, answer: Answer
) -> None:
    counts = []
    for size in (1, 40):
        for n in range(size):
            told = await merchant(engine, VAULT, f"https://{n}.example/", START)
            await enqueue(engine, told, START, count=2)
        dispatch = dispatcher(engine, answering(answer), clock)
        with watched_statements() as statements:
            result = await dispatch.run_once()
        assert result.retry + result.gone == size * 2
        counts.append(len(statements))
    assert counts[0] == counts[1] <= 4


async def test_connections_lost_at_any_moment_lose_no_delivery(
    engine: AsyncEngine, cluster: str, database_url: str, clock: Clock
) -> None:
    shops = [await merchant(engine, VAULT, f"https://{n}.example/", START) for n in range(5)]
    for told in shops:
        await enqueue(engine, told, START, count=10)
    world = answering(OK)

    async def answer(_: Post) -> Answer:
        if len(world.posts) in (1, 2, 5, 11, 23, 37):
            await kill_connections(cluster, database_url)
        return OK

    world.answer = answer
    dispatch = dispatcher(engine, world, clock, Limits(per_endpoint=2, poll_s=0.01))
    all_done = asyncio.Event()

    def beat() -> None:
        """Each round, the leases of claims whose answer was lost run out."""
        clock.move(Limits().lease)
        delivered = dispatch.metrics.registry.get_sample_value(
            "paywatch_attempts_total", {"result": "delivered"}
        )
        if delivered == 50:
            all_done.set()

    dispatch.beat = beat
    async with Running(dispatch) as running:
        await running.until(all_done)
    assert {row["state"] for row in await deliveries(engine)} == {"delivered"}
    assert len(await attempts(engine)) == 50


async def kill_connections(cluster: str, database_url: str) -> None:
    """End every connection to the database, from outside of it."""
    async with await psycopg.AsyncConnection.connect(cluster, autocommit=True) as conn:
        await conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [sqlalchemy_url(database_url).database],
        )

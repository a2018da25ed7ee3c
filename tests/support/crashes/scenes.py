"""What a process of paywatch is doing when it is killed, and what is prepared for it."""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from paywatch.domain.ledger import Position
from paywatch.store.cursors import backfill_stream
from support.crashes.town import Town

DAEMON: Final = ("run",)

_FORGET: Final = (
    """
CREATE TEMP TABLE told AS
SELECT DISTINCT ON (type) id FROM events WHERE type <> 'checkout.session.expired'
 ORDER BY type, recorded_at DESC""",
    "DELETE FROM attempts WHERE event_id IN (SELECT id FROM told)",
    "DELETE FROM deliveries WHERE event_id IN (SELECT id FROM told)",
    "DELETE FROM events WHERE id IN (SELECT id FROM told)",
    "DROP TABLE told",
    "DELETE FROM landmarks",
)
_LET_EXPIRE: Final = """
UPDATE checkout_sessions SET expires_at = d, accept_until = d
  FROM (SELECT max(read_through_at) - interval '1 second' AS d FROM cursors) read
 WHERE muxed_id = %s"""
_ANNOUNCE: Final = """
WITH announced AS (
    UPDATE checkout_sessions SET status = 'processing', updated_at = now(),
           announced_tx_hash = %s, announced_at = now() - interval '10 minutes'
     WHERE muxed_id = %s RETURNING id)
INSERT INTO session_transitions (session_id, before, after, cause, by, recorded_at)
SELECT id, 'pending', 'processing', 'announced', 'payer', now() FROM announced"""
_LEAVE_A_BACKFILL: Final = """
INSERT INTO cursors (stream, account, position, end_position, updated_at)
VALUES (%s, %s, %s, %s, now())"""
_A_NEIGHBOUR: Final = """
WITH watched AS (
    INSERT INTO accounts (account, merchant_id, start_position, created_at)
    SELECT %s, id, %s, now() FROM merchants RETURNING account, start_position)
INSERT INTO cursors (stream, account, position, updated_at)
SELECT 'live:' || account, account, start_position, now() FROM watched"""
_TELL_AGAIN: Final = """
WITH again AS (SELECT event_id FROM deliveries ORDER BY due_at DESC LIMIT 8),
     forgotten AS (DELETE FROM attempts USING again WHERE attempts.event_id = again.event_id)
UPDATE deliveries SET state = 'pending', attempts_made = 0, ended_at = NULL, due_at = now()
  FROM again WHERE deliveries.event_id = again.event_id"""


@dataclass(frozen=True)
class Scene:
    """One thing that paywatch does.

    Attributes:
        owns: transactions, or single points, at which processes are killed in this scene.
        prepare: what is done while nothing runs; gives the command.
        meanwhile: what happens when the daemon is at rest. Its points count from then on; without
            it they count from the start of the process.
        settings: its own; the daemon that puts things right has the usual ones.
        last: what a daemon logs when it has passed by all that the scene owns.
    """

    name: str
    owns: tuple[str, ...]
    prepare: Callable[[Town], Awaitable[tuple[str, ...]]]
    meanwhile: Callable[[Town], Awaitable[None]] | None = None
    settings: Mapping[str, str] = field(default_factory=dict, hash=False)
    last: str = "recovery_run"

    def has(self, point: str) -> bool:
        """Whether a point is one of its own."""
        return point in self.owns or point.partition(":")[0] in self.owns

    @property
    def leaves_repairs(self) -> bool:
        """Whether recovery has something to repair that no crash has broken."""
        return self.name == STARTING.name

    @property
    def ends_by_itself(self) -> bool:
        """Whether it is a command rather than the daemon."""
        return self.name in {ANNOUNCING.name, BACKFILLING.name}


async def _the_daemon(_town: Town) -> tuple[str, ...]:
    return DAEMON


async def _much_to_repair(town: Town) -> tuple[str, ...]:
    """Everything that a start finds: unread ledgers, what recovery repairs, an unended backfill."""
    for statement in _FORGET:
        await town.execute(statement)
    overdue, announced = next(town.numbers), next(town.numbers)
    await town.execute(_LET_EXPIRE, overdue)
    town.sessions[overdue] = ("expired", 0)
    await town.execute(_ANNOUNCE, secrets.token_bytes(32), announced)
    shop, latest = town.shop.account_id, town.network.ledger.latest.sequence
    after, end = Position.after_ledger(latest - 4), Position.after_ledger(latest)
    await town.execute(_LEAVE_A_BACKFILL, backfill_stream(shop, after), shop, int(after), int(end))
    await town.pay()
    return DAEMON


async def _much_to_tell(town: Town) -> tuple[str, ...]:
    """Events that were told are due again, as if nobody had been told yet."""
    await town.execute(_TELL_AGAIN)
    return DAEMON


async def _a_payment_to_announce(town: Town) -> tuple[str, ...]:
    number = next(town.numbers)
    tx_hash = await town.pay_one(number)
    [(id_,)] = await town.execute(
        "SELECT id::text FROM checkout_sessions WHERE muxed_id = %s", number
    )
    return ("session", "announce", id_, tx_hash)


async def _a_range_to_backfill(town: Town) -> tuple[str, ...]:
    await town.pay()
    return ("backfill",)


async def _a_neighbour_behind(town: Town) -> tuple[str, ...]:
    """Another account whose own cursor is behind the shop's, where the network-wide one begins."""
    neighbour = town.issuer.account_id
    await town.execute("DELETE FROM cursors WHERE account = %s", neighbour)
    await town.execute("DELETE FROM accounts WHERE account = %s", neighbour)
    behind = Position.after_ledger(town.network.ledger.latest.sequence - 4)
    await town.execute(_A_NEIGHBOUR, neighbour, int(behind))
    await town.pay()
    return DAEMON


async def _payments_on_the_way(town: Town) -> tuple[str, ...]:
    await town.pay()
    return DAEMON


FOLLOWING: Final = Scene(
    "following the ledger",
    ("settle.settle_and_commit", "horizon: streamed", "post"),
    _the_daemon,
    Town.pay,
)
READING: Final = Scene(
    "reading what has closed meanwhile",
    (
        "horizon: before GET",
        "horizon: behind GET",
        "elect.round",
        "follow.claim",
        "settle.settle_and_commit",
    ),
    _payments_on_the_way,
)
TELLING: Final = Scene(
    "telling what has been settled",
    ("dispatch.claim", "attempts.record", "post"),
    _much_to_tell,
)
STARTING: Final = Scene(
    "starting, with much to repair",
    (
        "network.leave",
        "backfill.resume",
        "backfill.finish",
        "histories.keep",
        "trace.end",
        "recover.expire_overdue",
        "recover.repair_unmarked",
        "recover.repair_untold",
        "recover.release_leases",
        "recover.bury_undeliverable",
    ),
    _much_to_repair,
)
ANNOUNCING: Final = Scene(
    "announcing",
    ("announce.announce", "settle.settle_and_commit: before histories.read"),
    _a_payment_to_announce,
)
BACKFILLING: Final = Scene("backfilling", ("backfill.run_range",), _a_range_to_backfill)
WIDENING: Final = Scene(
    "beginning the network-wide stream",
    ("network.open",),
    _payments_on_the_way,
    settings={"PAYWATCH_LISTEN_MODE": "network"},
)
JOINING: Final = Scene(
    "joining the network-wide stream",
    ("network.join_some",),
    _a_neighbour_behind,
    settings={"PAYWATCH_LISTEN_MODE": "network"},
    last="accounts_joined_the_network_stream",
)
SCENES: Final = (
    FOLLOWING,
    READING,
    TELLING,
    STARTING,
    ANNOUNCING,
    BACKFILLING,
    WIDENING,
    JOINING,
)

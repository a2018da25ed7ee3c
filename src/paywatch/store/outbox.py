"""The outbox's exit: deliveries claimed under a lease, attempts recorded, dead letters kept.

All of it is made for READ COMMITTED: each statement decides by the rows that it locks.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from paywatch.domain.delivery import Answer, Dead, Delivered, Gone, Retry, Verdict
from paywatch.store.rows import as_json, hexed

DeliveryKey: TypeAlias = tuple[UUID, UUID]  # event id, endpoint id
LeaseKey: TypeAlias = tuple[UUID, UUID, UUID]  # the same and the lease's token


@dataclass(frozen=True, slots=True)
class Room:
    """How much may be claimed: `slots` in all, so that no endpoint has more than `per_endpoint`.

    What other dispatchers hold counts for `per_endpoint`; dispatchers that claim in the same
    instant do not see each other, and an endpoint may then have that many from each.
    """

    slots: int
    per_endpoint: int

    def used_up_by(self, claimed: Iterable["Claimed"]) -> set[UUID]:
        """The endpoints whose last place is taken by these: more may be due there."""
        return {one.endpoint_id for one in claimed if one.place >= self.per_endpoint}


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that is ours until its lease ends, with all that an attempt needs."""

    event_id: UUID
    endpoint_id: UUID
    session_id: UUID | None  # what the event tells of: a session, or a credit of this operation
    operation_id: int | None
    lease_token: UUID
    attempt: int  # the number of the attempt to be made, from 1
    place: int  # from 1, among what its endpoint has in flight; from `Room.per_endpoint` none more
    url: str
    sealed_secret: bytes
    payload: bytes

    @property
    def lease(self) -> LeaseKey:
        """What names this claim: a delivery may be claimed again, even by the same dispatcher."""
        return self.event_id, self.endpoint_id, self.lease_token


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a delivery, and what becomes of the delivery by it."""

    claimed: Claimed
    started_at: datetime
    answer: Answer
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Depth:
    """What lies in the outbox."""

    pending: int
    dead: int
    oldest_due_at: datetime | None  # of those that are due and that nobody is about


# A dead endpoint with a hundred thousand due deliveries costs as much as one with ten: endpoints
# are found by one index probe each, and of each only its share is read. Who has least in flight
# comes first, so that endpoints that hang cannot take all slots from those that answer.
# COMMIT does not wait for the disk: a lease that a crash of the server forgets costs one POST more,
# as if the dispatcher had died. What is recorded is durable.
# `locked` asks whether it has ended, which no partial index tells, not for its state: statistics of
# an hour when nothing was pending say that the index of what is due finds each row as soon as its
# key does, and then all that is pending is read for each.
_CLAIM = text(
    """
WITH RECURSIVE waiting AS (
    (SELECT endpoint_id FROM deliveries WHERE state = 'pending' ORDER BY endpoint_id LIMIT 1)
    UNION ALL
    SELECT (SELECT d.endpoint_id FROM deliveries d
             WHERE d.state = 'pending' AND d.endpoint_id > w.endpoint_id
             ORDER BY d.endpoint_id LIMIT 1)
      FROM waiting w WHERE w.endpoint_id IS NOT NULL
), busy AS (
    SELECT endpoint_id, count(*) AS in_flight FROM deliveries
     WHERE lease_token IS NOT NULL AND lease_until > :now GROUP BY endpoint_id
), chosen AS (
    SELECT due.event_id, due.endpoint_id, due.place
      FROM waiting w
      JOIN endpoints e ON e.id = w.endpoint_id AND e.disabled_at IS NULL
      LEFT JOIN busy b ON b.endpoint_id = w.endpoint_id
     CROSS JOIN LATERAL (
           SELECT d.event_id, d.endpoint_id, d.due_at,
                  row_number() OVER (ORDER BY d.due_at) + coalesce(b.in_flight, 0) AS place
             FROM deliveries d
            WHERE d.state = 'pending' AND d.endpoint_id = w.endpoint_id AND d.due_at <= :now
              AND (d.lease_token IS NULL OR d.lease_until <= :now)
            ORDER BY d.due_at
            LIMIT greatest(0, :per_endpoint - coalesce(b.in_flight, 0))) due
     ORDER BY due.place, due.due_at LIMIT :slots
), locked AS (
    SELECT free.* FROM chosen c CROSS JOIN LATERAL (
           SELECT d.event_id, d.endpoint_id, c.place FROM deliveries d
            WHERE d.event_id = c.event_id AND d.endpoint_id = c.endpoint_id
              AND d.ended_at IS NULL AND (d.lease_token IS NULL OR d.lease_until <= :now)
              FOR UPDATE SKIP LOCKED) free
), hurried AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true)
), leased AS (
    UPDATE deliveries d SET lease_token = :token, lease_until = :until FROM locked, hurried
     WHERE d.event_id = locked.event_id AND d.endpoint_id = locked.endpoint_id
    RETURNING d.event_id, d.endpoint_id, d.lease_token, d.attempts_made, locked.place
)
SELECT leased.*, endpoints.url, endpoints.sealed_secret, events.payload,
       CASE WHEN events.operation_id IS NULL THEN events.subject END AS session_id,
       events.operation_id
  FROM leased
  JOIN events ON events.id = leased.event_id
  JOIN endpoints ON endpoints.id = leased.endpoint_id"""
)

# Fenced by the token: whoever lost the lease changes no row and leaves no attempt. An attempt
# that stands there already was written by a try whose COMMIT was not answered: recorded, too.
_RECORD = text(
    """
WITH made AS (
    SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS made(
           event_id uuid, endpoint_id uuid, lease_token uuid, number smallint,
           started_at timestamptz, duration_ms integer, status_code smallint, error text,
           answer bytea, state text, due_at timestamptz, dead_reason text)
), fenced AS (
    UPDATE deliveries d
       SET state = made.state, due_at = coalesce(made.due_at, d.due_at),
           attempts_made = made.number, lease_token = NULL, lease_until = NULL,
           ended_at = CASE WHEN made.state = 'pending' THEN NULL ELSE CAST(:now AS timestamptz) END,
           dead_reason = made.dead_reason
      FROM made
     WHERE d.event_id = made.event_id AND d.endpoint_id = made.endpoint_id
       AND d.lease_token = made.lease_token
    RETURNING d.event_id, d.endpoint_id, made.lease_token
), logged AS (
    INSERT INTO attempts (event_id, endpoint_id, number, started_at, duration_ms, status_code,
                          error, answer)
    SELECT event_id, endpoint_id, number, started_at, duration_ms, status_code, error, answer
      FROM made JOIN fenced USING (event_id, endpoint_id, lease_token)
)
SELECT event_id, endpoint_id, lease_token FROM fenced
UNION ALL
SELECT event_id, endpoint_id, lease_token
  FROM attempts JOIN made USING (event_id, endpoint_id, number, started_at)"""
)

_DISABLE = text(
    """
UPDATE endpoints e SET disabled_at = :now, disabled_reason = gone.reason
  FROM json_to_recordset(CAST(:rows AS json)) AS gone(id uuid, reason text)
 WHERE e.id = gone.id AND e.disabled_at IS NULL"""
)

# Not those in flight, or in the hands of another transaction: what that leaves is buried the next
# time. Whoever waits for nobody is in no circle of those that wait.
_BURY = text(
    """
UPDATE deliveries d
   SET state = 'dead', ended_at = :now, lease_token = NULL, lease_until = NULL,
       dead_reason = 'endpoint disabled: ' || waiting.disabled_reason
  FROM (SELECT w.event_id, w.endpoint_id, e.disabled_reason
          FROM endpoints e JOIN deliveries w ON w.endpoint_id = e.id
         WHERE e.disabled_at IS NOT NULL AND w.state = 'pending'
           AND (w.lease_token IS NULL OR w.lease_until <= :now)
           FOR UPDATE OF w SKIP LOCKED) waiting
 WHERE d.event_id = waiting.event_id AND d.endpoint_id = waiting.endpoint_id
RETURNING d.event_id, d.endpoint_id"""
)

_RELEASE = text(
    """
UPDATE deliveries d SET lease_token = NULL, lease_until = NULL
  FROM (SELECT event_id, endpoint_id FROM deliveries
         WHERE lease_token IS NOT NULL AND lease_until <= :now
           FOR UPDATE SKIP LOCKED) over
 WHERE d.event_id = over.event_id AND d.endpoint_id = over.endpoint_id
RETURNING d.event_id, d.endpoint_id"""
)

# An endpoint with attempts in flight has its share of the dispatchers: if more is due there than it
# takes, that is its own slowness, however old it grows. Each state has an index of its own, and
# `state IN (…)` would use neither.
_DEPTH = text(
    """
SELECT count(*) AS pending, (SELECT count(*) FROM deliveries WHERE state = 'dead') AS dead,
       min(due_at) FILTER (
           WHERE due_at <= :now
             AND endpoint_id NOT IN (
                 SELECT endpoint_id FROM deliveries
                  WHERE lease_token IS NOT NULL AND lease_until > :now)
             AND endpoint_id NOT IN (SELECT id FROM endpoints WHERE disabled_at IS NOT NULL)
       ) AS oldest_due_at
  FROM deliveries WHERE state = 'pending'"""
)


async def claim(
    conn: AsyncConnection, room: Room, token: UUID, now: datetime, lease: timedelta
) -> list[Claimed]:
    """Lease due deliveries to one dispatcher, the least busy endpoints' first.

    `token`, fresh for every claim, is the fence of what is recorded later; `lease` must be longer
    than an attempt can last.
    """
    limits = {"slots": room.slots, "per_endpoint": room.per_endpoint}
    lease_ = {"token": token, "now": now, "until": now + lease}
    return [_claimed(row) for row in await conn.execute(_CLAIM, limits | lease_)]


async def record(
    conn: AsyncConnection, attempts: Sequence[Attempt], now: datetime
) -> set[LeaseKey]:
    """Write attempts and what becomes of their deliveries; safe to repeat.

    An endpoint that is gone is disabled, and what waits for it becomes dead letters.

    Returns:
        The leases whose attempt is recorded. Missing ones were lost meanwhile.
    """
    rows = as_json(_row(attempt) for attempt in attempts)
    result = await conn.execute(_RECORD, {"rows": rows, "now": now})
    recorded = {(row.event_id, row.endpoint_id, row.lease_token) for row in result}
    gone = {
        attempt.claimed.endpoint_id: attempt.verdict.reason
        for attempt in attempts
        if isinstance(attempt.verdict, Gone) and attempt.claimed.lease in recorded
    }
    if gone:
        await disable(conn, gone, now)
        await bury(conn, now)
    return recorded


async def disable(conn: AsyncConnection, reasons: Mapping[UUID, str], now: datetime) -> None:
    """Disable endpoints, each for its reason; those that are disabled already stay as they are."""
    rows = as_json({"id": id_, "reason": reason} for id_, reason in reasons.items())
    await conn.execute(_DISABLE, {"rows": rows, "now": now})


async def bury(conn: AsyncConnection, now: datetime) -> list[DeliveryKey]:
    """Turn what waits for disabled endpoints into dead letters.

    Recovery calls it too, for what was enqueued in the moment when its endpoint was disabled.
    """
    return [(row.event_id, row.endpoint_id) for row in await conn.execute(_BURY, {"now": now})]


async def release_dead_leases(conn: AsyncConnection, now: datetime) -> list[DeliveryKey]:
    """Free the deliveries of dispatchers that did not come back in time."""
    return [(row.event_id, row.endpoint_id) for row in await conn.execute(_RELEASE, {"now": now})]


async def depth(conn: AsyncConnection, now: datetime) -> Depth:
    """Count what lies in the outbox; reads no delivered rows."""
    row = (await conn.execute(_DEPTH, {"now": now})).one()
    return Depth(row.pending, row.dead, row.oldest_due_at)


def _claimed(row: Row[Any]) -> Claimed:
    return Claimed(
        event_id=row.event_id,
        endpoint_id=row.endpoint_id,
        session_id=row.session_id,
        operation_id=row.operation_id,
        lease_token=row.lease_token,
        attempt=row.attempts_made + 1,
        place=row.place,
        url=row.url,
        sealed_secret=row.sealed_secret,
        payload=row.payload,
    )


def _row(attempt: Attempt) -> dict[str, object]:
    claimed, answer = attempt.claimed, attempt.answer
    return {
        "event_id": claimed.event_id,
        "endpoint_id": claimed.endpoint_id,
        "lease_token": claimed.lease_token,
        "number": claimed.attempt,
        "started_at": attempt.started_at,
        "duration_ms": round(answer.duration_s * 1000),
        "status_code": answer.status,
        "error": answer.error,
        "answer": hexed(answer.excerpt),
        **_becomes(attempt.verdict),
    }


def _becomes(verdict: Verdict) -> dict[str, object]:
    match verdict:
        case Delivered():
            return {"state": "delivered"}
        case Retry(at=at):
            return {"state": "pending", "due_at": at}
        case Dead(reason=reason) | Gone(reason=reason):
            return {"state": "dead", "dead_reason": reason}

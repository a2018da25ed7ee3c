"""What must always hold, as SQL that finds where it does not (design, section 5).

The daemon checks what changed since a moment; an audit checks everything. Each query gives one
row per violation: what it is about, and what is wrong with it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

LEASE_GRACE: Final = timedelta(minutes=10)
SHOWN: Final = 100  # violations of one kind that are listed; one is enough to alarm


@dataclass(frozen=True, slots=True)
class Violation:
    """One place where an invariant does not hold."""

    invariant: str
    subject: str
    problem: str


# Sessions that changed, or to which a credit came, since the moment asked for.
_RECENT = """
recent AS (
    SELECT id FROM checkout_sessions WHERE updated_at >= :since
    UNION
    SELECT session_id FROM credits WHERE recorded_at >= :since AND session_id IS NOT NULL
),
sums AS (
    SELECT s.id, s.status, s.amount, s.received, coalesce(sum(c.amount), 0) AS applied
      FROM recent JOIN checkout_sessions s USING (id)
      LEFT JOIN credits c ON c.session_id = s.id AND c.outcome = 'applied'
     GROUP BY s.id
)"""

INVARIANTS: Final = {
    "paid_if_and_only_if_credited": f"""
WITH {_RECENT}
SELECT id, format('is %s with %s of %s stroops applied', status, applied, amount) FROM sums
 WHERE (status = 'paid') <> (applied >= amount) AND status <> 'canceled'""",
    "received_is_the_sum_of_applied_credits": f"""
WITH {_RECENT}
SELECT id, format('received %s, but %s stroops are applied', received, applied) FROM sums
 WHERE received <> applied""",
    "a_payment_has_an_applied_credit": """
SELECT encode(p.tx_hash, 'hex'), 'no applied credit' FROM payments p
 WHERE p.recorded_at >= :since
   AND NOT EXISTS (SELECT FROM credits c WHERE c.payment_tx_hash = p.tx_hash)""",
    "one_paid_event_per_paid_session": """
SELECT coalesce(s.id, e.subject), format('is %s, paid events: %s', s.status, count(e.id))
  FROM (SELECT * FROM checkout_sessions WHERE updated_at >= :since) s
  LEFT JOIN events e ON e.subject = s.id AND e.type = 'checkout.session.paid'
 GROUP BY s.id, s.status, e.subject
HAVING (s.status = 'paid') <> (count(e.id) = 1)""",
    "an_event_is_on_its_way_or_ended": """
SELECT e.id, 'has no delivery to an endpoint that was there before it'
  FROM events e JOIN endpoints n USING (merchant_id)
 WHERE e.recorded_at >= :since AND n.created_at < e.recorded_at
   AND (n.disabled_at IS NULL OR n.disabled_at > e.recorded_at)
   AND NOT EXISTS (SELECT FROM deliveries d WHERE d.event_id = e.id AND d.endpoint_id = n.id)""",
    "a_delivery_ended_by_an_attempt": """
SELECT d.event_id, format('is %s after %s attempts, %s recorded', d.state, d.attempts_made,
                          count(a.number))
  FROM deliveries d LEFT JOIN attempts a USING (event_id, endpoint_id)
 WHERE d.ended_at >= :since
 GROUP BY d.event_id, d.endpoint_id
HAVING d.state = 'delivered' AND count(a.number) FILTER (WHERE a.status_code / 100 = 2) = 0""",
    "no_lease_outlives_its_time": """
SELECT event_id, format('leased until %s', lease_until) FROM deliveries
 WHERE lease_token IS NOT NULL AND lease_until < :lease_limit""",
    "no_credit_is_quarantined": """
SELECT q.operation_id, 'is a credit and in quarantine'
  FROM quarantine q WHERE q.quarantined_at >= :since
   AND EXISTS (SELECT FROM credits c WHERE c.operation_id = q.operation_id)""",
}


async def find_violations(
    conn: AsyncConnection, now: datetime, since: datetime | None = None
) -> list[Violation]:
    """Check every invariant, and list where it is broken.

    Args:
        conn: any connection; the checks only read.
        now: the wall clock, for leases.
        since: check only what changed from then on; everything if not given.
    """
    found: list[Violation] = []
    for name, statement in INVARIANTS.items():
        parameters: dict[str, object] = {}
        if ":since" in statement:
            parameters["since"] = since or datetime.min.replace(tzinfo=now.tzinfo)
        if ":lease_limit" in statement:
            parameters["lease_limit"] = now - LEASE_GRACE
        rows = await conn.execute(text(f"{statement} LIMIT {SHOWN}"), parameters)
        found.extend(Violation(name, str(row[0]), row[1]) for row in rows)
    return found

"""What must always hold, as SQL that finds where it does not (design, section 5).

The daemon checks what changed since a moment; an audit checks everything. Each query gives one
row per violation: what it is about, and what is wrong with it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from paywatch.store.credits import HISTORY_SQL
from paywatch.store.cursors import FOLLOWED_SQL
from paywatch.store.engine import look_back

LEASE_GRACE: Final = timedelta(minutes=10)
SHOWN: Final = 100  # violations of one kind that are listed; one is enough to alarm


@dataclass(frozen=True, slots=True)
class Violation:
    """One place where an invariant does not hold."""

    invariant: str
    subject: str
    problem: str


# Sessions that changed, or to which a credit came, since the moment asked for.
_CHANGED = """
recent AS (
    SELECT id FROM checkout_sessions WHERE updated_at >= :since
    UNION
    SELECT session_id FROM credits WHERE recorded_at >= :since AND session_id IS NOT NULL
)"""

_RECENT = f"""
{_CHANGED}, sums AS (
    SELECT s.id, s.status, s.amount, s.least_amount, s.received, s.paid_how, s.paid_at,
           s.expires_at, coalesce(sum(c.amount), 0) AS applied
      FROM recent JOIN checkout_sessions s USING (id)
      LEFT JOIN credits c ON c.session_id = s.id AND c.outcome = 'applied'
     GROUP BY s.id
)"""

INVARIANTS: Final = {
    "paid_if_and_only_if_credited": f"""
WITH {_RECENT}
SELECT id, format('is %s with %s of %s stroops applied', status, applied, least_amount) FROM sums
 WHERE (status = 'paid') <> (applied >= least_amount)""",
    "received_is_the_sum_of_applied_credits": f"""
WITH {_RECENT}
SELECT id, format('received %s, but %s stroops are applied', received, applied) FROM sums
 WHERE received <> applied""",
    "paid_says_truly_how": f"""
WITH {_RECENT}
SELECT id, format('is paid %s with %s of %s stroops', paid_how, applied, amount) FROM sums
 WHERE status = 'paid' AND paid_how <> CASE
       WHEN paid_at > expires_at THEN 'late'
       WHEN applied < amount THEN 'under'
       WHEN applied > amount THEN 'over' ELSE 'exact' END""",
    "a_status_is_the_end_of_its_log": f"""
WITH {_RECENT}
SELECT id, format('is %s, its log ends with %s', status, coalesce(ended.after, 'nothing'))
  FROM sums LEFT JOIN LATERAL (
       SELECT t.after FROM session_transitions t
        WHERE t.session_id = sums.id ORDER BY t.id DESC LIMIT 1) ended ON true
 WHERE status <> coalesce(ended.after, 'pending')""",
    # Applied by a word, it has to fit in account and asset only; what was returned was held.
    "an_outcome_fits_its_session": f"""
WITH {_RECENT}, judged AS (
    SELECT c.*, CASE c.outcome WHEN 'returned' THEN c.held_as ELSE c.outcome END AS judged_as
      FROM recent JOIN credits c ON c.session_id = recent.id
)
SELECT format('%s:%s', c.operation_id, c.change_index),
       format('%s %s closed at %s is %s to a session of %s %s until %s', c.account, c.asset,
              c.closed_at, c.judged_as, s.account, s.asset, s.accept_until)
  FROM judged c JOIN checkout_sessions s ON s.id = c.session_id
 WHERE c.account <> s.account
    OR (c.judged_as = 'wrong_asset') <> (c.asset <> s.asset)
    OR c.judged_as = 'applied' AND c.held_as IS NULL AND c.closed_at > s.accept_until
    OR c.judged_as = 'late' AND c.closed_at <= s.accept_until
    OR c.judged_as = 'duplicate' AND s.status <> 'paid'
    OR c.judged_as = 'canceled' AND s.status <> 'canceled'""",
    # By its session: a credit that a word applies may have been recorded long before.
    "a_payment_is_that_of_its_credits": f"""
WITH {_CHANGED}
SELECT format('%s:%s', c.operation_id, c.change_index), 'its payment differs from it'
  FROM recent JOIN credits c ON c.session_id = recent.id
  JOIN payments p ON p.tx_hash = c.payment_tx_hash AND p.history = c.history
 WHERE (p.ledger, p.closed_at, p.inner_tx_hash, p.memo_type, p.memo) IS DISTINCT FROM
       (c.operation_id >> 32, c.closed_at, c.inner_tx_hash, c.memo_type, c.memo)""",
    # Credits are found by their position, which begins with the ledger of their payment.
    "a_payment_has_an_applied_credit": """
WITH recent AS MATERIALIZED (
    SELECT tx_hash, history, ledger FROM payments WHERE recorded_at >= :since
)
SELECT encode(tx_hash, 'hex'), 'no applied credit'
  FROM (SELECT tx_hash, history FROM recent
        EXCEPT
        SELECT c.payment_tx_hash, c.history
          FROM (SELECT DISTINCT ledger FROM recent) l
          JOIN credits c ON c.operation_id >= l.ledger << 32
                        AND c.operation_id < (l.ledger + 1) << 32) AS alone""",
    "one_paid_event_per_paid_session": """
SELECT s.id, format('is %s, paid events: %s', s.status, count(e.id))
  FROM checkout_sessions s
  LEFT JOIN events e ON e.subject = s.id AND e.type = 'checkout.session.paid'
 WHERE s.updated_at >= :since
 GROUP BY s.id
HAVING (s.status = 'paid') <> (count(e.id) = 1)""",
    "one_expired_event_per_expired_session": """
SELECT s.id, format('is %s, expired events: %s', s.status, count(e.id))
  FROM checkout_sessions s
  LEFT JOIN events e ON e.subject = s.id AND e.type = 'checkout.session.expired'
 WHERE s.updated_at >= :since AND s.status <> 'paid'  -- it may have expired before
 GROUP BY s.id
HAVING (s.status = 'expired') <> (count(e.id) = 1)""",
    # By the ledger's clock, never by ours: whatever was paid in time has been read by then.
    "an_expired_session_was_read_past": """
SELECT s.id, format('expires at %s, and its ledger was read through %s', s.expires_at,
                    coalesce(max(c.read_through_at)::text, 'nothing'))
  FROM checkout_sessions s
  LEFT JOIN cursors c ON c.stream IN ('live:' || s.account, 'live:network')
 WHERE s.updated_at >= :since AND s.status = 'expired'
 GROUP BY s.id
HAVING coalesce(max(c.read_through_at) <= s.expires_at, true)""",
    "one_unapplied_event_per_held_credit": """
SELECT format('%s:%s', c.operation_id, c.change_index),
       format('is %s, was held as %s, unapplied events: %s', c.outcome,
              coalesce(c.held_as, 'nothing'), count(e.id))
  FROM credits c LEFT JOIN events e
       ON e.operation_id = c.operation_id AND e.change_index = c.change_index
      AND e.history = c.history AND e.type = 'payment.unapplied'
 WHERE c.recorded_at >= :since
 GROUP BY c.operation_id, c.change_index, c.history
HAVING count(e.id) <> CASE WHEN coalesce(c.held_as, c.outcome) = 'applied' THEN 0 ELSE 1 END""",
    "an_event_is_its_sessions_or_credits": """
SELECT e.id, 'has no derived id, or is told to another merchant than it is about'
  FROM events e
  LEFT JOIN checkout_sessions s ON s.id = e.subject
  LEFT JOIN credits c ON c.operation_id = e.operation_id AND c.change_index = e.change_index
                     AND c.history = e.history
  LEFT JOIN accounts a ON a.account = c.account
 WHERE e.recorded_at >= :since
   AND (substr(e.id::text, 15, 1) <> '5'
        OR (e.type = 'payment.unapplied') <> (c.operation_id IS NOT NULL)
        OR e.merchant_id <> coalesce(a.merchant_id, s.merchant_id))""",
    "an_event_is_on_its_way_or_ended": """
SELECT e.id, 'has no delivery to an endpoint that was there before it'
  FROM events e JOIN endpoints n USING (merchant_id)
 WHERE e.recorded_at >= :since AND n.created_at <= e.recorded_at
   AND NOT EXISTS (SELECT FROM deliveries d WHERE d.event_id = e.id AND d.endpoint_id = n.id)""",
    # A dead letter needs no attempt: its endpoint may have been gone before.
    "a_delivery_is_what_its_attempts_made_it": """
SELECT d.event_id, format('is %s after %s attempts, %s recorded', d.state, d.attempts_made,
                          count(a.number))
  FROM events e JOIN deliveries d ON d.event_id = e.id
  LEFT JOIN attempts a USING (event_id, endpoint_id)
 WHERE e.recorded_at >= :since
 GROUP BY d.event_id, d.endpoint_id
HAVING (d.state = 'delivered') <>
       (count(*) FILTER (WHERE a.status_code / 100 = 2 AND a.error IS NULL) = 1)
    OR d.attempts_made <> count(a.number) OR d.attempts_made <> coalesce(max(a.number), 0)""",
    "no_lease_outlives_its_time": """
SELECT event_id, format('leased until %s', lease_until) FROM deliveries
 WHERE lease_token IS NOT NULL AND lease_until < :lease_limit""",
    "no_credit_is_quarantined": """
SELECT q.operation_id, 'is a credit and in quarantine'
  FROM quarantine q WHERE q.quarantined_at >= :since
   AND EXISTS (SELECT FROM credits c WHERE c.operation_id = q.operation_id
                                       AND c.history = q.history
                         AND split_part(q.stream, ':', 2) IN (c.account, 'network'))""",
    "a_cursor_is_of_the_present_history": f"""
SELECT stream, format('is of history %s', history) FROM cursors WHERE history <> {HISTORY_SQL}""",
    "an_accepted_gap_is_behind_its_cursor": """
SELECT g.stream, format('gave up what is until %s, and is at %s', g.upto_position, c.position)
  FROM accepted_gaps g JOIN cursors c USING (stream, history)
 WHERE c.position < g.upto_position""",
    "a_watched_account_is_read": f"""
SELECT a.account, 'has no live cursor, or one before the place where watching began'
  FROM accounts a LEFT JOIN cursors c ON c.stream = {FOLLOWED_SQL}
 WHERE c.position IS NULL OR c.position < a.start_position""",
}

# Of what is recent, each row's company is looked up by its index. A few hundred thousand recent
# rows of ten million are enough for PostgreSQL to read whole tables and join these instead.
_BY_INDEX = text(
    "SELECT set_config('enable_' || way, 'off', true)"
    " FROM unnest(ARRAY['seqscan', 'hashjoin', 'mergejoin']) way"
)


def first(statement: str) -> str:
    """Limit a statement of INVARIANTS to the rows that are shown.

    It is planned for all of its rows: for a few, which it seldom has, PostgreSQL would walk a table
    in the order of its key until it has found them.
    """
    return f"WITH found AS MATERIALIZED ({statement})\nSELECT * FROM found LIMIT {SHOWN}"


async def find_violations(
    conn: AsyncConnection, now: datetime, since: datetime | None = None
) -> list[Violation]:
    """Check every invariant, and list where it is broken.

    Args:
        conn: in a transaction with one snapshot for all checks; they only read.
        now: the wall clock, for leases.
        since: check only what changed from then on; everything if not given.
    """
    await look_back(conn)
    if since is not None:
        await conn.execute(_BY_INDEX)
    found: list[Violation] = []
    for name, statement in INVARIANTS.items():
        parameters: dict[str, object] = {}
        if ":since" in statement:
            parameters["since"] = since or datetime.min.replace(tzinfo=now.tzinfo)
        if ":lease_limit" in statement:
            parameters["lease_limit"] = now - LEASE_GRACE
        rows = await conn.execute(text(first(statement)), parameters)
        found.extend(Violation(name, str(row[0]), row[1]) for row in rows)
    return found

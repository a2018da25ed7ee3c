"""Millions of sessions that are over, with all that belongs to them, as a year leaves them.

Keys are as random as the program's own: memos of 63 random bits, hashes of transactions, derived
ids of events; session ids are UUIDv7, in the order in which sessions were opened. Rows are written
without their indexes, which are then built as the schema has them.
"""

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import psycopg

from support import ACCOUNT, ENDPOINT_ID, MERCHANT_ID, PAYER

SPAN: Final = timedelta(days=365)
EXPIRED_EVERY: Final = 11  # one session of so many was never paid
OPERATION: Final = 2**32  # positions from one ledger to the next

# What the n-th session is known by, worked out once.
_KNOWN_BY: Final = f"""
CREATE UNLOGGED TABLE filling AS
SELECT n, n %% {EXPIRED_EVERY} <> 0 AS is_paid, opened_at,
       opened_at + interval '30 minutes' AS due,
       opened_at + CASE n %% {EXPIRED_EVERY} WHEN 0 THEN interval '30 minutes'
                   ELSE interval '10 minutes' END AS done_at,
       hashint8extended(n, 1) & 9223372036854775807 AS memo,
       sha256(int8send(n)) AS tx_hash,
       overlay(md5(n::text) PLACING '5' FROM 13)::uuid AS event_id,
       (lpad(to_hex((extract(epoch FROM opened_at) * 1000)::bigint), 12, '0')
        || '7' || substr(md5((-n)::text), 1, 3) || '8' || substr(md5((-n)::text), 4, 15)
       )::uuid AS session_id
  FROM generate_series(1, %(sessions)s::bigint) n,
       LATERAL (SELECT %(begin)s::timestamptz + n * %(step)s::interval AS opened_at) o"""

_FILL: Final = {
    "events": """
INSERT INTO events (id, merchant_id, type, subject, payload, occurred_at, recorded_at)
SELECT event_id, %(merchant)s,
       CASE WHEN is_paid THEN 'checkout.session.paid' ELSE 'checkout.session.expired' END,
       session_id, %(payload)s::bytea, done_at, done_at FROM filling""",
    "checkout_sessions": f"""
INSERT INTO checkout_sessions (id, merchant_id, account, memo_type, memo, muxed_id, asset, amount,
       received, status, paid_how, paid_at, expires_at, created_at, updated_at, opened_position,
       reference, least_amount, accept_until, text_for_id)
SELECT session_id, %(merchant)s, %(account)s, 'id', int8send(memo), memo, 'native', 100,
       CASE WHEN is_paid THEN 100 ELSE 0 END, CASE WHEN is_paid THEN 'paid' ELSE 'expired' END,
       CASE WHEN is_paid THEN 'exact' END, CASE WHEN is_paid THEN done_at END,
       due, opened_at, done_at, n * {OPERATION}, 'order-' || n, 100, due, true FROM filling""",
    "credits": f"""
INSERT INTO credits (operation_id, change_index, account, asset, amount, tx_hash, payer, memo_type,
       memo, closed_at, outcome, session_id, recorded_at)
SELECT n * {OPERATION}, 0, %(account)s, 'native', 100, tx_hash, %(payer)s, 'id',
       int8send(memo), done_at, 'applied', session_id, done_at FROM filling WHERE is_paid""",
    "session_transitions": f"""
INSERT INTO session_transitions (session_id, before, after, cause, by, operation_id, change_index,
       recorded_at)
SELECT session_id, 'pending', CASE WHEN is_paid THEN 'paid' ELSE 'expired' END,
       CASE WHEN is_paid THEN 'credited_in_full' ELSE 'deadline_passed' END, 'live',
       CASE WHEN is_paid THEN n * {OPERATION} END, CASE WHEN is_paid THEN 0 END, done_at
  FROM filling""",
    "payments": """
INSERT INTO payments (tx_hash, ledger, closed_at, payer, memo_type, memo, recorded_at)
SELECT tx_hash, n, done_at, %(payer)s, 'id', int8send(memo), done_at FROM filling WHERE is_paid""",
    "deliveries": """
INSERT INTO deliveries (event_id, endpoint_id, state, due_at, attempts_made, ended_at)
SELECT event_id, %(endpoint)s, 'delivered', done_at, 1, done_at FROM filling""",
    "attempts": """
INSERT INTO attempts (event_id, endpoint_id, number, started_at, duration_ms, status_code, answer)
SELECT event_id, %(endpoint)s, 1, done_at, 5, 200, 'ok' FROM filling""",
}

_OPEN = """
INSERT INTO checkout_sessions (id, merchant_id, account, memo_type, memo, muxed_id, asset, amount,
       expires_at, created_at, updated_at, opened_position, reference, least_amount, accept_until,
       text_for_id)
SELECT id, %(merchant)s, %(account)s, 'id', int8send(memo), memo, 'native', 100, due, opened_at,
       opened_at, 0, 'open-' || memo, 100, due, true
  FROM unnest(%(ids)s::uuid[], %(memos)s::bigint[]) o(id, memo),
       LATERAL (SELECT %(now)s::timestamptz AS opened_at,
                       %(now)s::timestamptz + interval '1 day' AS due) d"""

# Indexes that are not ready are not written: each is built at once, of all rows, by REINDEX.
_FAST = """
SET session_replication_role = replica;  -- foreign keys hold by the way it is made
SET synchronous_commit = off; SET jit = off; SET maintenance_work_mem = '1GB'"""
_WITHOUT_INDEXES = """
UPDATE pg_index SET indisready = false WHERE indrelid = ANY(%(tables)s::regclass[])"""


@dataclass(frozen=True)
class Filling:
    """A database with an open shop (`support.Shop`), to be filled.

    Attributes:
        url: the database's, with the rights of a superuser.
        sessions: how many were opened within SPAN before `now`.
        payload: how many bytes an event has, about.
    """

    url: str
    sessions: int
    now: datetime
    payload: int = 550

    def fill(self) -> float:
        """Fill all tables, build their indexes, vacuum and analyze; gives the seconds it took."""
        began = time.perf_counter()
        self._execute(_WITHOUT_INDEXES, tables=list(_FILL))
        begin = self.now - SPAN
        step = (self.now - timedelta(hours=1) - begin) / self.sessions
        self._execute(_KNOWN_BY, sessions=self.sessions, begin=begin, step=step)
        with ThreadPoolExecutor(2) as both:  # a server process each
            _all_done(both.map(self._fill, _FILL))
            _all_done(both.map(self._build, _FILL))
        self._execute("DROP TABLE filling")
        return time.perf_counter() - began

    def open(self, keys: Iterable[tuple[UUID, int]]) -> None:
        """Add sessions that wait for money, by id and memo."""
        ids, memos = zip(*keys, strict=True)
        self._execute(
            _OPEN,
            ids=list(ids),
            memos=list(memos),
            now=self.now,
            merchant=MERCHANT_ID,
            account=ACCOUNT,
        )
        self._execute("VACUUM ANALYZE checkout_sessions")

    def _fill(self, table: str) -> None:
        self._execute(
            _FILL[table],
            merchant=MERCHANT_ID,
            endpoint=ENDPOINT_ID,
            account=ACCOUNT,
            payer=PAYER,
            payload=b"x" * self.payload,
        )

    def _build(self, table: str) -> None:
        self._execute(f"REINDEX TABLE {table}")
        self._execute(f"VACUUM (ANALYZE, FREEZE) {table}")

    def _execute(self, statement: str, **values: Any) -> None:
        with psycopg.connect(self.url, autocommit=True) as conn:
            conn.execute(_FAST)
            conn.execute(statement, values)


def _all_done(results: Iterable[object]) -> None:
    for _ in results:
        pass

"""What must hold when everything has come to rest: each session, each event, each delivery."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import psycopg

from paywatch.domain.ledger import format_stroops
from simulation.book import Book, CreditKey
from simulation.checks import Checks, Look
from simulation.oracle import Expected, Found, expectations
from simulation.shops import Shops, Told

_SESSIONS: Final = "SELECT id, status, received, paid_how FROM checkout_sessions"
_CREDITS: Final = """
SELECT operation_id, change_index, outcome, session_id, held_as FROM credits"""
_EVENTS: Final = """
SELECT e.id, e.type, e.payload, e.merchant_id, d.state, d.dead_reason
  FROM events e LEFT JOIN deliveries d ON d.event_id = e.id ORDER BY e.id"""
_PAYMENTS: Final = "SELECT encode(tx_hash, 'hex') FROM payments"
_PAID_FOR: Final = """
SELECT DISTINCT encode(tx_hash, 'hex') FROM credits WHERE outcome = 'applied'"""

# What is not at rest yet, and when it can be.
_RESTLESS: Final = """
SELECT 'delivery is leased', NULL FROM deliveries WHERE lease_token IS NOT NULL
UNION ALL
SELECT 'delivery is pending', due_at FROM deliveries
 WHERE state = 'pending' AND lease_token IS NULL
UNION ALL
SELECT 'session is ' || status, accept_until FROM checkout_sessions
 WHERE status NOT IN ('paid', 'expired')
UNION ALL
SELECT 'a backfill is unfinished', NULL FROM cursors WHERE end_position IS NOT NULL"""


@dataclass(frozen=True)
class Rest:
    """The last look of a run.

    Attributes:
        in_order: whether all was read in the ledger's order.
    """

    conn: psycopg.Connection[Any]
    book: Book
    shops: Shops
    checks: Checks
    in_order: bool

    def restless(self) -> list[tuple[str, datetime | None]]:
        """Say what is not at rest, and from when on it may be."""
        look, found = self.checks.look(), self.conn.execute(_RESTLESS).fetchall()
        unread = self.checks.money().keys() - look.credits.keys()
        waiting = [key for key in unread if key[0] not in look.quarantine]
        return [(what, at) for what, at in found] + [(f"{key} is unread", None) for key in waiting]

    def problems(self) -> Iterator[str]:
        """Say what is wrong."""
        look = self.checks.look()
        yield from self.checks.problems(look)
        yield from self._problems_of_sessions()
        yield from self._problems_of_payments()
        yield from self._problems_of_events()
        yield from self._problems_of_quarantine(look)

    def _problems_of_sessions(self) -> Iterator[str]:
        credits_ = self.conn.execute(_CREDITS).fetchall()
        unmatched = {
            (a, b) for a, b, outcome, _, held in credits_ if "unmatched" in (outcome, held)
        }
        expected = expectations(
            self.book, self.checks.money().values(), unmatched, in_order=self.in_order
        )
        found = self._found(credits_)
        if strange := found.keys() ^ expected.keys():
            yield f"sessions that are there and not known, or the other way round: {strange}"
        for id_ in found.keys() & expected.keys():
            for problem in expected[id_].problems_of(found[id_]):
                yield f"session {id_} {problem} ({expected[id_].session})"
        yield from self._problems_of_unmatched(expected, unmatched)

    def _found(self, credits_: list[tuple[Any, ...]]) -> dict[UUID, Found]:
        applied: dict[UUID, set[CreditKey]] = defaultdict(set)
        held: dict[UUID, dict[CreditKey, str]] = defaultdict(dict)
        for operation_id, change_index, outcome, session_id, _ in credits_:
            key = (operation_id, change_index)
            if outcome == "applied":
                applied[session_id].add(key)
            elif session_id is not None:
                held[session_id][key] = outcome
        return {
            id_: Found(status, received, how, frozenset(applied[id_]), held[id_])
            for id_, status, received, how in self.conn.execute(_SESSIONS)
        }

    def _problems_of_unmatched(
        self, expected: dict[UUID, Expected], unmatched: set[CreditKey]
    ) -> Iterator[str]:
        """What names no session, and that alone, is unmatched, or was before a word."""
        named = {money.key for one in expected.values() for money in one.named}
        readable = {k for k in self.checks.money() if k[0] not in self.book.planted}
        elsewhere = self.book.applied.keys()
        if wrong := (readable - named - unmatched) - elsewhere:
            yield f"{sorted(wrong)} name nothing, and are not unmatched"
        if wrong := unmatched & named:
            yield f"{sorted(wrong)} name a session, and are unmatched"

    def _problems_of_payments(self) -> Iterator[str]:
        payments = {row[0] for row in self.conn.execute(_PAYMENTS)}
        if (paid := {row[0] for row in self.conn.execute(_PAID_FOR)}) != payments:
            yield f"payments that are not those of applied credits: {sorted(payments ^ paid)}"

    def _problems_of_events(self) -> Iterator[str]:
        """Each is told, or a dead letter with a reason; and nothing else was told."""
        merchants = [registered.merchant for registered in self.book.merchants]
        paths = {one.merchant_id: f"/{n}" for n, one in enumerate(merchants)}
        reachable = {one.merchant_id for one in merchants if one.webhook_secret is not None}
        told = set()
        for id_, kind, payload, merchant_id, state, reason in self.conn.execute(_EVENTS):
            data = json.loads(payload)["data"]
            subject = data["credit" if kind == "payment.unapplied" else "session_id"]
            this = Told(paths[merchant_id], kind, subject)
            told.add(this)
            if (said := self.shops.told.get(this)) and said != (str(id_), bytes(payload)):
                yield f"event {id_} was told as {said}"
            if state is None and merchant_id in reachable:
                yield f"event {id_} is on its way to nobody"
            if state == "delivered" and this not in self.shops.taken:
                yield f"event {id_} is delivered, and its merchant never took it"
            if state == "dead" and this.path not in self.book.gone:  # no run has time for all tries
                yield f"event {id_} is dead for no reason: {reason}"
            if kind == "checkout.session.paid":
                yield from self._problems_of_paid(UUID(subject), data)
        if untold := self.shops.told.keys() - told:
            yield f"told, and never written: {sorted(map(str, untold))}"

    def _problems_of_paid(self, session_id: UUID, data: dict[str, Any]) -> Iterator[str]:
        """What a merchant is told of a paid session is what it is."""
        session = self.book.sessions[session_id]
        row = self.conn.execute(
            "SELECT received, paid_how FROM checkout_sessions WHERE id = %s", [session_id]
        ).fetchone()
        if row is None:
            return
        wanted = {
            "status": "paid",
            "received": format_stroops(row[0]),
            "paid_how": row[1],
            "amount": format_stroops(session.amount),
            "reference": session.reference,
            "memo": str(session.memo),
        }
        if {name: data[name] for name in wanted} != wanted:
            yield f"session {session_id} was told as {data}, and is {wanted}"

    def _problems_of_quarantine(self, look: Look) -> Iterator[str]:
        accounts = {registered.account for registered in self.book.merchants}
        planted = {op for op, account in self.book.planted.items() if account in accounts}
        watched = {key[0] for key in self.checks.money()}
        if look.quarantine != planted & watched:
            yield f"in quarantine {look.quarantine}, must be {planted & watched}"

"""Wrong changes to what looks after sessions: expiry, recovery, audit, retries, leadership."""

from typing import Final

from planted.bug import Bug

RETRY: Final = "store/retry.py"

BUGS: Final = (
    Bug(
        "expiry-by-the-wall-clock",
        "store/recovery.py",
        "AND o.expires_at < c.read_through_at",
        "AND o.expires_at < c.updated_at",
        "A payment made in time and read late finds its session expired.",
    ),
    Bug(
        "expiry-not-told",
        "service/recover.py",
        "            told = map(domain_events.session_expired, expired)\n",
        "            told: list[domain_events.Event] = []\n",
        "A session expires, and its merchant is not told.",
    ),
    Bug(
        "expiry-forgets-the-log",
        "service/recover.py",
        "            await recovery.log_transitions(conn, changes, now)\n",
        "",
        "A session expires without a line in the log of transitions.",
    ),
    Bug(
        "a-paid-session-is-pending-again",
        "store/announcements.py",
        " WHERE s.status = 'processing' AND s.announced_tx_hash",
        " WHERE s.announced_tx_hash",
        "The waiting for a transaction is ended, although it has paid meanwhile (lesson 2).",
    ),
    Bug(
        "given-up-too-soon",
        "domain/announcement.py",
        "    if announcement.until is not None and trace.tip_closed_at > announcement.until:\n",
        "    if announcement.until is not None:\n",
        "A transaction that can still come is not waited for.",
        "integration/service/test_announce.py",
    ),
    Bug(
        "overdue-by-our-clock",
        "domain/announcement.py",
        "return min(now, trace.tip_closed_at) > announcement.announced_at + patience",
        "return now > announcement.announced_at + patience",
        "A Horizon that lags has not seen a transaction, and it is given up.",
        "integration/service/test_processing.py",
    ),
    Bug(
        "an-audit-that-only-looks",
        "service/audit.py",
        "settle: bool = True",
        "settle: bool = False",
        "What an audit finds missing stays missing.",
        "integration/service/test_audit.py",
    ),
    Bug(
        "an-audit-of-the-last-minute",
        "service/audit.py",
        "ledgers = ceil(self.timing.window_s / LEDGER_S)",
        "ledgers = 1",
        "An audit reads one ledger again, and not an hour's.",
        "integration/service/test_audit.py",
    ),
    Bug(
        "accused-by-one-reading",
        "service/audit.py",
        "            batch, found = await self._read_and_compare(reading, after)\n"
        "            proven = tuple(f for f in found.mismatches if f.place in accused)\n",
        "            proven = found.mismatches if accused else ()\n",
        "One reading of one instance is enough to accuse.",
        "integration/service/test_audit.py",
    ),
    Bug(
        "data-errors-are-tried-again",
        RETRY,
        '"57": "shutdown"}\n_DATA_CLASSES: Final = frozenset({"22", "23"})',
        '"57": "shutdown", "22": "data", "23": "data"}\n_DATA_CLASSES: Final = frozenset[str]()',
        "A record that the database refuses is brought to it again for ever.",
        "integration/service/test_settle.py::test_a_record_that_the_database_refuses_is_found_by_bisection",
    ),
    Bug(
        "serialization-is-fatal",
        RETRY,
        '    "40001": "serialization_failure",\n',
        "",
        "Two that meet in the database end one of the two.",
    ),
    Bug(
        "deadlock-is-fatal",
        RETRY,
        '    "40P01": "deadlock",\n',
        "",
        "A deadlock ends the daemon.",
        "integration/store/test_retry.py",
    ),
    Bug(
        "a-lost-connection-is-fatal",
        RETRY,
        "        lost = error.connection_invalidated or isinstance(error, OperationalError)\n",
        "        lost = False\n",
        "A connection that is lost without a code ends the daemon (lesson 20).",
    ),
    Bug(
        "a-word-is-taken-twice",
        "service/held.py",
        "                _require_held(state)\n                settlement = apply_by_word",
        "                settlement = apply_by_word",
        "A credit that was applied, or returned, is applied to another session too.",
        "integration/service/test_held.py::test_a_word_that_cannot_be_followed_changes_nothing_and_says_why",
    ),
    Bug(
        "everybody-leads",
        "store/leadership.py",
        "WHERE pg_try_advisory_lock(hashtextextended(stream, {LOCK_SEED}))",
        "WHERE pg_try_advisory_lock(hashtextextended(stream || pg_backend_pid(), {LOCK_SEED}))",
        "Two processes lead one stream, and take it from each other for ever.",
        "integration/service/test_elect.py",
    ),
    Bug(
        "leadership-for-ever",
        "service/elect.py",
        "        self.led.clear()\n        self._lost.set()\n",
        "        self.led.clear()\n",
        "A leader whose lock is lost goes on.",
        "integration/service/test_elect.py",
    ),
)

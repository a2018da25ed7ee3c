"""Wrong changes to how credits become payments."""

from typing import Final

from planted.bug import Bug

SETTLE: Final = "service/settle.py"
DECIDE: Final = "domain/settlement.py"

CANARY: Final = Bug(
    "canary",
    DECIDE,
    "received = session.received + credit.amount\n",
    "received = session.received + credit.amount + 1\n",
    "A session receives one stroop more than was paid.",
)

BUGS: Final = (
    Bug(
        "cursor-before-credits",
        SETTLE,
        "                    return Settled()\n                await self._require_history(conn)\n",
        "                    return Settled()\n"
        "            async with self._settler.engine.begin() as conn:\n"
        "                await self._require_history(conn)\n",
        "The cursor moves in a transaction of its own, before what it was moved for is written.",
    ),
    Bug(
        "no-fold",
        DECIDE,
        """\
        prove(session, named[session.id], unproven[session.id])
        if session.id in unproven
        else decide(session, named[session.id])
        for session in sessions
        if session.id in named
""",
        """\
        prove(session, [credit], unproven[session.id])
        if session.id in unproven
        else decide(session, [credit])
        for session in sessions
        for credit in named.get(session.id, ())
""",
        "Each credit of a batch is decided by itself, as if the others were not there (lesson 18).",
    ),
    Bug(
        "one-credit-per-hash",
        SETTLE,
        "fresh = {credit.key: credit for credit in credits_ if credit.key not in known}",
        "fresh = {credit.tx_hash: credit for credit in credits_ if credit.key not in known}",
        "Money is deduplicated by its transaction's hash alone: the second operation is lost.",
    ),
    Bug(
        "credits-known-not-asked",
        SETTLE,
        "if credit.key not in known}",
        "if credit.key}",
        "What was read before is taken for new, and settled again.",
    ),
    Bug(
        "events-beside-the-transaction",
        SETTLE,
        "        await in_turn(conn, self._writes(decided, history, told, now))\n",
        "        *writes, tell = self._writes(decided, history, told, now)\n"
        "        await in_turn(conn, writes)\n"
        "        async with self._settler.engine.begin() as apart:\n"
        "            await in_turn(apart, [tell])\n",
        "The event is written by a transaction of its own (lesson 3).",
    ),
    Bug(
        "unreadable-passed-over",
        SETTLE,
        "unreadable = [_quarantined(r, r.problem) for r in records if r.problem is not None]",
        "unreadable: list[Quarantined] = []",
        "A record that cannot be read is forgotten, and the cursor moves on.",
    ),
    Bug(
        "no-bisection",
        SETTLE,
        "if self._bisect or not is_data_error(error):",
        "if self._bisect or is_data_error(error) or True:",
        "One record that the database refuses stops its stream.",
        "integration/service/test_settle.py::test_a_record_that_the_database_refuses_is_found_by_bisection",
    ),
    Bug(
        "order-of-reading-completes",
        SETTLE,
        "if decided.completed:\n",
        "if decided.completed and False:\n",
        "Whoever is read last has completed a session, whatever the ledger says.",
        "integration/service/test_settle_order.py",
    ),
    Bug(
        "a-wrong-history-is-settled",
        SETTLE,
        "if wanted is not None and (await histories.read(conn)).number != wanted:",
        "if wanted is not None and (await histories.read(conn)).number < wanted:",
        "What was read before a reset of the network is written as the new one's.",
        "integration/store/test_histories.py",
    ),
    Bug(
        "any-issuer-pays",
        DECIDE,
        "    if credit.asset != session.asset:\n        return Outcome.WRONG_ASSET\n",
        "    if credit.asset.code != session.asset.code:\n        return Outcome.WRONG_ASSET\n",
        "An asset of the same name by anybody pays (lesson 5).",
    ),
    Bug(
        "canceled-is-paid",
        DECIDE,
        "    if session.status is SessionStatus.CANCELED:\n        return Outcome.CANCELED\n",
        "",
        "A canceled session takes money.",
        "integration/service/test_races.py::test_cancel_against_payment",
    ),
    Bug(
        "paid-twice",
        DECIDE,
        "    if session.status is SessionStatus.PAID:\n        return Outcome.DUPLICATE\n",
        "",
        "A paid session takes a second payment.",
    ),
    Bug(
        "grace-forgotten",
        DECIDE,
        "if credit.closed_at > session.terms.accept_until:",
        "if credit.closed_at > session.expires_at:",
        "A payment after the deadline is late, whatever the merchant tolerates.",
    ),
    Bug(
        "late-is-in-time",
        DECIDE,
        "    if credit.closed_at > session.terms.accept_until:\n        return Outcome.LATE\n",
        "",
        "Nothing is ever too late.",
    ),
    Bug(
        "tolerance-forgotten",
        DECIDE,
        "enough = received >= session.terms.least_amount",
        "enough = received >= session.amount",
        "A payment within the merchant's tolerance does not pay.",
        "unit/domain/test_settlement.py",
    ),
    Bug(
        "digits-name-anybody",
        DECIDE,
        "return session if session and session.terms.text_for_id else None",
        "return session",
        "A text memo stands for an id, whatever the merchant chose.",
    ),
    Bug(
        "old-money-pays",
        DECIDE,
        "if session is None or credit.operation_id <= session.opened_position:",
        "if session is None:",
        "Money from before a session was opened pays it.",
        "integration/service/test_settle.py::test_an_old_payment_read_by_a_backfill_pays_no_new_session_of_the_same_memo",
    ),
    Bug(
        "muxed-id-ignored",
        DECIDE,
        "    if credit.muxed_id is not None:\n",
        "    if False:\n",
        "The memo names the session, although a muxed address was paid.",
    ),
    Bug(
        "a-hostile-muxed-id",
        "store/sessions.py",
        "named = credit.muxed_id if credit.muxed_id < 2**63 else None",
        "named = credit.muxed_id",
        "A muxed id of 64 bits is no BIGINT: somebody's dust cannot be written.",
        "integration/service/test_settle.py::test_a_muxed_id_of_64_bits_is_kept_and_matches_nothing",
    ),
    Bug(
        "lock-order-reversed",
        "store/sessions.py",
        ') ORDER BY s.id"""\n\n_LOCK',
        ') ORDER BY s.id DESC"""\n\n_LOCK',
        "Settling locks sessions in another order than everybody else (lesson 19).",
        "integration/store/test_lock_order.py",
    ),
    Bug(
        "sessions-not-locked",
        "store/sessions.py",
        '_LOCK_NAMED = text(f"{_NAMED} FOR UPDATE OF s")',
        "_LOCK_NAMED = text(_NAMED)",
        "Settling reads sessions without their locks.",
        "integration/store/test_lock_order.py",
    ),
    Bug(
        "read-committed",
        "store/engine.py",
        'isolation_level="SERIALIZABLE"',
        'isolation_level="READ COMMITTED"',
        "Two that read the same and write both commit.",
        "integration/service/test_races.py",
    ),
    Bug(
        "any-refund-returns-all",
        "service/held.py",
        "                refund.require_cover(credit, await held.returned_by(conn, refund.tx_hash,"
        " credit))\n",
        "",
        "One refund returns any number of credits.",
        "integration/service/test_held.py",
    ),
    Bug(
        "applied-to-any-account",
        DECIDE,
        '    if credit.account != session.account:\n        raise InvalidInput("session",'
        ' f"is on {session.account}; the credit came to another")\n',
        "",
        "A word applies one merchant's money to another one's session.",
        "integration/service/test_held.py",
    ),
)

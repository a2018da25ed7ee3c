"""A market day: everything that paywatch does to sessions, at once, on the same sessions.

Every session has a part in one race; what comes of it is either one thing, or one of two.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random
from typing import Any, Final

from paywatch.domain.checkout import CheckoutSession
from paywatch.domain.delivery import Answer
from paywatch.domain.ledger import Credit, Memo
from paywatch.domain.settlement import Outcome
from paywatch.errors import CursorMoved, InvalidInput, NotFound
from support import NOW, START, USDC, closing, make_credit
from support.pages import TIP
from support.races import Arena, cancel, on_the_ledger

SOON: Final = closing(1010)  # a deadline that the ledger passes
FAR: Final = NOW + timedelta(days=1)
WORD, BACK = make_credit(tx=1, memo=Memo.none()), make_credit(tx=2, memo=Memo.none())
REFUND: Final = make_credit(ledger=1500, account=BACK.payer, payer=BACK.account)
ANNOUNCED: Final = make_credit(ledger=1006, memo=Memo.of_id(3))

PAYMENTS: Final = (
    WORD,
    BACK,
    make_credit(ledger=1002, memo=Memo.of_id(1)),
    make_credit(ledger=1003, memo=Memo.of_id(1)),  # once more
    make_credit(40, ledger=1003, tx=2, memo=Memo.of_id(2)),
    make_credit(60, ledger=1005, memo=Memo.of_id(2)),
    ANNOUNCED,
    make_credit(ledger=1009, memo=Memo.of_id(4)),  # in time
    make_credit(ledger=1011, memo=Memo.of_id(6)),  # late
    make_credit(ledger=1012, memo=Memo.of_id(7)),
    make_credit(ledger=1013, memo=Memo.of_id(8)),
    make_credit(ledger=1014, memo=Memo.of_id(10)),
    make_credit(ledger=1015, op=1, muxed_id=12),
    make_credit(ledger=1015, op=2, muxed_id=13),
    make_credit(ledger=1015, op=3, muxed_id=77),
    make_credit(ledger=1016, memo=Memo.of_id(14), asset=USDC),
)
# Whoever is first: the session's status and what it received, and by causes how it came to it.
ENDS: Final[dict[int, set[tuple[str, int]]]] = {
    1: {("paid", 100)},
    2: {("paid", 100)},
    3: {("paid", 100)},
    4: {("paid", 100)},
    5: {("expired", 0)},
    6: {("expired", 0)},
    7: {("paid", 100), ("canceled", 0)},
    8: {("paid", 100)},
    9: {("paid", 100), ("pending", 0)},
    10: {("paid", 100)},
    11: {("pending", 0)},
    12: {("paid", 100)},
    13: {("paid", 100)},
    14: {("pending", 0)},
}


@dataclass
class Market:
    """One day of it.

    Attributes:
        arena: with the shop, which has nothing yet.
        rng: draws who begins when.
        refusals: how often a word came too late, or a claim was lost.
        moving: whether the merchant's server is gone now and then.
    """

    arena: Arena
    rng: Random
    sessions: dict[int, CheckoutSession] = field(default_factory=dict)
    posted: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    refusals: Counter[str] = field(default_factory=Counter)
    moving: bool = True

    async def open(self) -> None:
        """Open the sessions; two credits are held, two sessions wait since long ago."""
        arena = self.arena
        await arena.seal_endpoint()
        for number in ENDS:
            deadline = SOON if number in {4, 5, 6} else FAR
            self.sessions[number] = await arena.shop.add_session(number, expires_at=deadline)
        await arena.settling(WORD, BACK)
        early = arena.announcements()
        long_ago = NOW - timedelta(hours=1)
        early = replace(early, tracer=replace(early.tracer, clock=lambda: long_ago))
        for number in (10, 11):
            await early.announce(self.sessions[number].id, f"{number:02x}" * 32)
        arena.pages.credits = list(PAYMENTS)
        arena.pages.size = self.rng.randint(1, 5)
        arena.pages.traces |= on_the_ledger(ANNOUNCED) | on_the_ledger(REFUND)

    async def day(self) -> None:
        """Let everybody work at once; nobody may fail, but for what is refused."""
        arena, rows = self.arena, self.sessions
        works: list[Coroutine[Any, Any, Any]] = [
            *[arena.stream() for _ in range(2)],
            *[arena.recovery().run_once() for _ in range(2)],
            *[arena.recovery().expire_overdue() for _ in range(2)],
            *[arena.announcements().announce(rows[3].id, ANNOUNCED.tx_hash) for _ in range(2)],
            *[arena.words().apply(WORD.key, rows[8].id) for _ in range(2)],
            arena.words().apply(BACK.key, rows[9].id),
            arena.words().mark_returned(BACK.key, REFUND.tx_hash),
            cancel(arena.pool(), 7),
            arena.backfill().run_range(arena.shop.account, START, TIP),
            arena.backfill().resume_all(),
            arena.auditor().run_once(),
            *[self._dispatch() for _ in range(2)],
            self._enable(),
        ]
        self.rng.shuffle(works)
        async with asyncio.TaskGroup() as tasks:
            for work in works:
                tasks.create_task(self._begin(work, self.rng.randrange(60)))

    async def _begin(self, work: Coroutine[Any, Any, Any], turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        try:
            await work
        except (InvalidInput, CursorMoved, NotFound) as refused:
            self.refusals[type(refused).__name__] += 1

    async def evening(self) -> None:
        """Read to the end, look after everything, and tell all that is left."""
        arena = self.arena
        await arena.backfill().resume_all()
        await arena.stream()
        report = await arena.recovery().run_once()
        assert report.healthy, report
        audit = await arena.auditor().run_once()
        assert audit.healthy, audit
        self.moving = False
        await self._enable()
        while (await arena.dispatcher(self._post).run_once()).delivered:
            pass

    async def _dispatch(self) -> None:
        dispatcher = self.arena.dispatcher(self._post)
        for _ in range(6):
            await dispatcher.run_once()

    async def _enable(self) -> None:
        """A merchant who enables the endpoint and sends the dead letters again."""
        letters = self.arena.letters()
        await letters.enable_endpoint(self.arena.shop.merchant_id)
        for row in await letters.read_list("dead", 100):
            try:
                await letters.resend(row.event_id)
            except InvalidInput:
                self.refusals["resend"] += 1

    async def _post(self, _url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """The merchant's server."""
        await asyncio.sleep(0)
        seen = self.posted[headers["webhook-id"]]
        seen.add(body)
        gone = self.moving and len(self.posted) in {3, 7}
        return Answer(status=410 if gone else 200, excerpt=b"", duration_s=0.0)

    async def ends(self) -> dict[int, tuple[str, int]]:
        """Where each session stands."""
        sql = "SELECT muxed_id, status, received FROM checkout_sessions ORDER BY 1"
        return {row[0]: (row[1], row[2]) for row in await self.arena.shop.rows(sql)}

    async def outcomes(self) -> dict[str, str]:
        """What each credit did."""
        sql = "SELECT operation_id, change_index, outcome FROM credits"
        return {f"{row[0]}:{row[1]}": row[2] for row in await self.arena.shop.rows(sql)}

    def expected_outcomes(self, ends: Mapping[int, tuple[str, int]], word: str) -> dict[str, str]:
        """What each credit must have done, by how the races ended that could end either way."""
        done: dict[str, Outcome] = {c.name: Outcome.APPLIED for c in PAYMENTS}
        by_number = {c.memo: c for c in PAYMENTS if c.muxed_id is None}
        done[PAYMENTS[3].name] = Outcome.DUPLICATE
        done[by_number[Memo.of_id(6)].name] = Outcome.LATE
        done[by_number[Memo.of_id(14)].name] = Outcome.WRONG_ASSET
        done[_muxed(77).name] = Outcome.UNMATCHED
        if ends[7][0] == "canceled":
            done[by_number[Memo.of_id(7)].name] = Outcome.CANCELED
        if ends[9][0] == "pending":
            done[BACK.name] = Outcome.RETURNED
        if word == "applied":
            done[by_number[Memo.of_id(8)].name] = Outcome.DUPLICATE
        else:
            done[WORD.name] = Outcome.UNMATCHED
        return {name: str(outcome) for name, outcome in done.items()}

    async def events(self) -> set[tuple[str, str]]:
        """What was told, and of what: a session, or an operation."""
        sql = "SELECT type, coalesce(operation_id::text, subject::text) FROM events"
        return {(row[0], row[1]) for row in await self.arena.shop.rows(sql)}

    def expected_events(
        self, ends: Mapping[int, tuple[str, int]], outcomes: Mapping[str, str]
    ) -> set[tuple[str, str]]:
        """One for each session that is paid or expired, one for each credit that ever was held."""
        told = {
            (f"checkout.session.{status}", str(self.sessions[number].id))
            for number, (status, _) in ends.items()
            if status in {"paid", "expired"}
        }
        held = {c for c in PAYMENTS if outcomes[c.name] != "applied"} | {WORD, BACK}
        return told | {("payment.unapplied", str(int(c.operation_id))) for c in held}


def _muxed(number: int) -> Credit:
    return next(c for c in PAYMENTS if c.muxed_id == number)

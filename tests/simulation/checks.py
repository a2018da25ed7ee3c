"""What must hold after every COMMIT, by one question to the database; see also `rest`."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import psycopg

from paywatch.sim import Ledger
from paywatch.sim.history import after_ledger
from paywatch.store.invariants import INVARIANTS, LEASE_GRACE
from simulation.book import Book, CreditKey, Diary
from simulation.oracle import Money, money_of

_PARAMETER: Final = re.compile(r"(?<![:\w]):(\w+)(?!:)")


def _violations() -> Iterator[str]:
    for name, statement in INVARIANTS.items():
        escaped = _PARAMETER.sub(r"%(\1)s", statement.replace("%", "%%"))
        yield f"SELECT 'violation', '{name}', a::text, b, NULL FROM ({escaped}) v(a, b)"


# Kind, and up to four texts.
_LOOK: Final = " UNION ALL ".join(
    [
        *_violations(),
        """
SELECT 'cursor', stream, position::text, epoch::text, history::text FROM cursors""",
        """
SELECT 'account', a.account, a.start_position::text,
       CASE a.followed_by WHEN 'network' THEN 'live:network' ELSE 'live:' || a.account END, NULL
  FROM accounts a""",
        """
SELECT 'credit', operation_id::text, change_index::text,
       concat_ws('/', account, muxed_id, asset, amount, encode(tx_hash, 'hex'), memo_type,
                 encode(memo, 'hex'), extract(epoch FROM closed_at)::bigint), NULL FROM credits""",
        "SELECT 'quarantine', operation_id::text, stream, NULL, NULL FROM quarantine",
    ]
)


@dataclass(slots=True)
class Look:
    """The database at one moment, as far as the checks need it."""

    violations: list[tuple[str, str, str]] = field(default_factory=list)
    cursors: dict[str, tuple[int, int, int]] = field(default_factory=dict)  # history, position, …
    accounts: dict[str, tuple[int, str]] = field(default_factory=dict)  # start, stream
    credits: dict[CreditKey, str] = field(default_factory=dict)
    quarantine: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, rows: list[tuple[Any, ...]]) -> "Look":
        """Sort the rows of `_LOOK`."""
        look = cls()
        for kind, a, b, c, d in rows:
            match kind:
                case "violation":
                    look.violations.append((a, b, c))
                case "cursor":
                    look.cursors[a] = (int(d), int(b), int(c))
                case "account":
                    look.accounts[a] = (int(b), c)
                case "credit":
                    look.credits[int(a), int(b)] = c
                case _:
                    look.quarantine.add(int(a))
        return look


class Checks:
    """Looks at the database after every COMMIT that wrote.

    Args:
        conn: autocommit, and beside the gate: the checks take no virtual time.
        ledger: what has really happened.
        book: what was done.
        diary: is told what is wrong.
        clock: the world's.
    """

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        ledger: Ledger,
        book: Book,
        diary: Diary,
        clock: Callable[[], datetime],
    ) -> None:
        self._conn = conn
        self._ledger = ledger
        self._book = book
        self._diary = diary
        self._clock = clock
        self._cursors: dict[str, tuple[int, int, int]] = {}
        self._accounts: dict[str, tuple[int, str]] = {}
        self._money: dict[CreditKey, Money] = {}
        self._known: dict[CreditKey, str] = {}
        self._read_upto = 0
        self.looks = 0

    def after_commit(self) -> None:
        """Check everything; what is wrong is an alarm."""
        self.looks += 1
        try:
            for problem in self.problems(self.look()):
                self._diary.alarm(problem)
        except Exception as error:  # noqa: BLE001 # else it would be taken for the daemon's own
            self._diary.alarm(f"a check broke: {error!r}")

    def problems(self, look: Look) -> Iterator[str]:
        """Say what is wrong."""
        for invariant, subject, problem in look.violations:
            yield f"invariant {invariant}: {subject} {problem}"
        yield from self._problems_of_cursors(look.cursors)
        yield from self._problems_of_accounts(look.accounts)
        self._bring_up(look.accounts)
        for key, found in look.credits.items() - self._known.items():
            yield from self._problems_of_credit(key, found)
        yield from self._missing(look)
        if self._known.keys() - look.credits.keys():
            yield "a credit has gone"
        self._known = look.credits

    def money(self) -> Mapping[CreditKey, Money]:
        """All that came to the watched accounts, up to the latest ledger."""
        self._bring_up(self._accounts)
        return self._money

    def look(self) -> Look:
        """Look at the database, all at one moment."""
        now = self._clock()
        values = {
            "since": datetime.min.replace(tzinfo=now.tzinfo),
            "lease_limit": now - LEASE_GRACE,
        }
        return Look.of(self._conn.execute(_LOOK, values, prepare=True).fetchall())

    def _problems_of_cursors(self, cursors: Mapping[str, tuple[int, int, int]]) -> Iterator[str]:
        end = after_ledger(self._ledger.latest.sequence)
        for stream, cursor in cursors.items():
            before = self._cursors.get(stream)
            if before is not None and not _follows(before, cursor):
                yield f"the cursor of {stream} went from {before} to {cursor}"
            if cursor[1] > end:
                yield f"the cursor of {stream} is at {cursor[1]}, the ledger ends at {end}"
        self._cursors |= cursors

    def _problems_of_accounts(self, accounts: Mapping[str, tuple[int, str]]) -> Iterator[str]:
        """Where watching began is the database's word, once: money before it is nobody's."""
        end = after_ledger(self._ledger.latest.sequence)
        for account, (start, _) in accounts.items():
            before, _ = self._accounts.get(account, (start, ""))
            if start != before:
                yield f"{account} was watched from {before} on, and is from {start} on"
            if start > end:
                yield f"{account} is watched from {start} on, the ledger ends at {end}"

    def _bring_up(self, accounts: Mapping[str, tuple[int, str]]) -> None:
        """Read on in the ledger, and for new accounts all of it."""
        begins = {account: start for account, (start, _) in accounts.items()}
        if accounts.keys() != self._accounts.keys():
            self._read_upto = 0
        self._accounts = dict(accounts)
        for money in money_of(self._ledger, begins, self._read_upto):
            self._money[money.key] = money
        self._read_upto = after_ledger(self._ledger.latest.sequence)

    def _problems_of_credit(self, key: CreditKey, found: str) -> Iterator[str]:
        money = self._money.get(key)
        if money is None:
            yield f"credit {key} is not on the ledger: {found}"
        elif (wanted := _written(money)) != found:
            yield f"credit {key} is {found}, on the ledger {wanted}"
        if key[0] in self._book.planted:
            yield f"credit {key} could not have been read"

    def _missing(self, look: Look) -> Iterator[str]:
        """Up to the cursor every credit is there, or known to be unreadable."""
        for key, money in self._money.items():
            if key in look.credits or money.operation_id >> 32 in self._book.hidden:
                continue
            stream = look.accounts[money.account][1]
            if money.operation_id > look.cursors[stream][1]:
                continue
            if money.operation_id not in look.quarantine & self._book.planted.keys():
                yield f"{stream} is past {key}, and it is no credit: {_written(money)}"


def _follows(before: tuple[int, int, int], after: tuple[int, int, int]) -> bool:
    """Neither position nor epoch goes back; and this network never begins another history."""
    return after[0] == before[0] and after[1] >= before[1] and after[2] >= before[2]


def _written(money: Money) -> str:
    kind, value = money.memo
    muxed = [] if money.muxed_id is None else [money.muxed_id]
    parts = [
        money.account, *muxed, money.asset, money.amount, money.tx_hash, kind, value.hex(),
        int(money.closed_at.timestamp()),
    ]  # fmt: skip
    return "/".join(map(str, parts))

"""What must be true at rest: worked out from the simulated ledger and the facts of the book alone.

It shares no code with the settling: it reads the effects that the ledger notes of each operation,
which paywatch never looks at, and folds them into the sessions by the promises of the design.

Where the order of reading is not that of the ledger, several results are lawful, and `Expected`
says which: see `Expected.problems_of`. That is so

- for sessions that an announced transaction names: it is settled when it is announced;
- for sessions that a transaction of a ledger names which a Horizon showed late;
- where a stream can leave a record out and bring later ones, or the network is read as a whole;
- for sessions to which a word applied a credit.

In all of them the status is the same, and so is how much came in all.
"""

import base64
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from paywatch.domain.checkout import CheckoutSession
from paywatch.sim import Ledger
from paywatch.sim.history import AppliedOperation, Effect
from simulation.book import Book, CreditKey

CREDITED: Final = {"account_credited": "amount", "account_created": "starting_balance"}
DEBITED: Final = frozenset({"account_debited"})


@dataclass(frozen=True, slots=True)
class Money:
    """One increase of an account's balance, as the ledger notes it. Amounts in stroops."""

    operation_id: int
    account: str
    muxed_id: int | None
    asset: str
    amount: int
    tx_hash: str
    memo: tuple[str, bytes]
    closed_at: datetime

    @property
    def key(self) -> CreditKey:
        """The identity that paywatch gives it: no operation of this ledger credits twice."""
        return (self.operation_id, 0)


def money_of(ledger: Ledger, since: Mapping[str, int], beyond: int = 0) -> list[Money]:
    """Give what came to these accounts, each from its position on, in the ledger's order.

    Args:
        ledger: the simulated one.
        since: where the watching of each account began.
        beyond: leave out what is not behind this position.
    """
    found = []
    for operation in _after(ledger.history.payments, beyond):
        for effect in _credits(operation):
            begin = since.get(effect.account.account_id)
            if begin is not None and operation.id > begin:
                found.append(_money(operation, effect))
    return found


def _after(operations: list[AppliedOperation], position: int) -> Iterator[AppliedOperation]:
    newer = []
    for operation in reversed(operations):
        if operation.id <= position:
            break
        newer.append(operation)
    return reversed(newer)


def _credits(operation: AppliedOperation) -> Iterable[Effect]:
    """The accounts that gained: one that pays itself gains nothing, whatever it converts."""
    paying = {e.account.account_id for e in operation.effects if e.type in DEBITED}
    for effect in operation.effects:
        if effect.type in CREDITED and effect.account.account_id not in paying:
            yield effect


def _money(operation: AppliedOperation, effect: Effect) -> Money:
    details = effect.details
    units, places = details[CREDITED[effect.type]].split(".")
    native = effect.type == "account_created" or details["asset_type"] == "native"
    return Money(
        operation_id=operation.id,
        account=effect.account.account_id,
        muxed_id=effect.account.account_muxed_id,
        asset="native" if native else f"{details['asset_code']}:{details['asset_issuer']}",
        amount=int(units) * 10**7 + int(places),
        tx_hash=operation.tx.hash,
        memo=_memo(operation.tx.memo),
        closed_at=effect.closed_at,
    )


def _memo(memo: Mapping[str, Any]) -> tuple[str, bytes]:
    kind = memo["memo_type"]
    if kind == "text":
        return kind, base64.b64decode(memo["memo_bytes"])
    if kind == "id":
        return kind, int(memo["memo"]).to_bytes(8, "big")
    return kind, base64.b64decode(memo["memo"]) if kind in {"hash", "return"} else b""


@dataclass(frozen=True, slots=True)
class Found:
    """A session and its credits as the database has them.

    Attributes:
        applied: the keys of its applied credits.
        held: the other credits that name it, with what became of each.
    """

    status: str
    received: int
    paid_how: str | None
    applied: frozenset[CreditKey]
    held: Mapping[CreditKey, str]


@dataclass(frozen=True, slots=True)
class Expected:
    """What must have become of one session.

    Attributes:
        named: all money that names it, in the ledger's order, but what came before it was opened,
            and what a word applied to another session.
        by_word: of all money, what a word applied to it.
        returned: what a word called returned.
        in_order: whether all that names it was read in the ledger's order.
    """

    session: CheckoutSession
    named: tuple[Money, ...]
    by_word: tuple[Money, ...]
    returned: frozenset[CreditKey]
    in_order: bool

    @property
    def pays(self) -> dict[CreditKey, Money]:
        """The money that may pay it, in the ledger's order."""
        right = (m for m in self.named if self._is_right(m) and self._is_in_time(m))
        money = {m.key: m for m in (*right, *self.by_word)}
        return {key: money[key] for key in sorted(money)}

    @property
    def status(self) -> str:
        """What it must have become, its deadline being behind."""
        reached = sum(m.amount for m in self.pays.values())
        return "paid" if reached >= self._least else "expired"

    @property
    def strict(self) -> bool:
        """Whether there is one lawful result, not several."""
        return self.in_order and not self.by_word and not self.returned

    def problems_of(self, found: Found) -> Iterator[str]:
        """Say what is wrong with a session as it was found."""
        if found.status != self.status:
            yield f"is {found.status}, must be {self.status}"
        if unknown := sorted(found.applied - self.pays.keys()):
            yield f"has {unknown} applied, which do not pay it"
            return
        applied = [m for m in self.pays.values() if m.key in found.applied]
        if found.received != (total := sum(m.amount for m in applied)):
            yield f"received {found.received}, applied are {total}"
        yield from self._problems_of_held(found)
        yield from self._problems_of_choice(applied)
        if found.status == "paid" and found.paid_how != (how := self._how(applied)):
            yield f"is paid {found.paid_how}, must be {how}"

    def _problems_of_held(self, found: Found) -> Iterator[str]:
        """All other money that names it is held, each for a lawful reason."""
        left = {m.key: m for m in self.named if m.key not in found.applied}
        if lacking := sorted(left.keys() - found.held.keys()):
            yield f"does not hold {lacking}"
        if more := sorted(found.held.keys() - left.keys()):
            yield f"holds {more}, which do not name it"
        for key in sorted(left.keys() & found.held.keys()):
            lawful = {"returned"} if key in self.returned else self._lawful(left[key])
            if found.held[key] not in lawful:
                yield f"holds {key} as {found.held[key]}, lawful: {sorted(lawful)}"

    def _lawful(self, money: Money) -> set[str]:
        """What money that does not pay it may be held as."""
        if not self._is_right(money):
            return {"wrong_asset"}
        if self.status != "paid":
            return {"late"}  # in time, it would have been applied
        if self.strict or self._is_in_time(money):
            return {"duplicate"}
        return {"late", "duplicate"}  # by what had been read then

    def _problems_of_choice(self, applied: list[Money]) -> Iterator[str]:
        """Nothing is left out before it is paid, and nothing applied behind that."""
        total = sum(m.amount for m in applied)
        left = [m for m in self.pays.values() if m not in applied]
        if left and total < self._least:
            yield f"left out {left}, though it was not paid"
        if applied and total - max(m.amount for m in applied) >= self._least:
            yield f"has more applied than paid it: {applied}"
        if self.strict and left and applied and left[0].key < applied[-1].key:
            yield f"left out {left[0]} and applied {applied[-1]} behind it"

    def _how(self, applied: list[Money]) -> str:
        """How it was paid, by the ledger's order of what was applied."""
        reached = 0
        for money in applied:
            reached += money.amount
            if reached >= self._least:
                if money.closed_at > self.session.expires_at:
                    return "late"
                break
        total = sum(m.amount for m in applied)
        if total == self.session.amount:
            return "exact"
        return "over" if total > self.session.amount else "under"

    @property
    def _least(self) -> int:
        return self.session.terms.least_amount

    def _is_right(self, money: Money) -> bool:
        return money.asset == str(self.session.asset)

    def _is_in_time(self, money: Money) -> bool:
        return money.closed_at <= self.session.terms.accept_until


def names(session: CheckoutSession, money: Money) -> bool:
    """Whether money names a session, by the muxed address or by the memo, and was not before it."""
    if money.account != session.account or money.operation_id <= session.opened_position:
        return False
    if money.muxed_id is not None:
        return money.muxed_id == session.muxed_id
    kind, value = session.memo.type.value, session.memo.value
    if money.memo == (kind, value):
        return True
    digits = str(int.from_bytes(value, "big")).encode()
    return kind == "id" and session.terms.text_for_id and money.memo == ("text", digits)


def _is_out_of_order(money: Money, book: Book) -> bool:
    return money.tx_hash in book.announced or money.operation_id >> 32 in book.hidden


def expectations(
    book: Book, money: Iterable[Money], unmatched: Container[CreditKey], *, in_order: bool
) -> dict[UUID, Expected]:
    """Work out what must have become of each session.

    Args:
        book: what was done.
        money: all that came to the watched accounts since they were watched.
        unmatched: what the database holds as naming nothing: lawful for what closed before the
            session that it names was opened, for it may have been read before, or behind.
        in_order: whether every reading goes by the ledger's order, but for what was announced or
            shown late.
    """
    readable = {m.key: m for m in money if m.operation_id not in book.planted}
    named: dict[UUID, list[Money]] = defaultdict(list)
    for one in readable.values():
        for id_, session in book.sessions.items():
            was_before = one.operation_id >> 32 <= book.opened_at[id_] and one.key in unmatched
            if names(session, one) and not was_before:
                named[id_].append(one)
    return {
        id_: Expected(
            session=session,
            named=tuple(m for m in named[id_] if book.applied.get(m.key, id_) == id_),
            by_word=tuple(readable[key] for key, to in sorted(book.applied.items()) if to == id_),
            returned=frozenset(m.key for m in named[id_] if m.key in book.returned),
            in_order=in_order and not any(_is_out_of_order(m, book) for m in named[id_]),
        )
        for id_, session in book.sessions.items()
    }

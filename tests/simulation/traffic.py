"""What customers do: payments of every kind, right and wrong, for sessions and for nothing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Final

from stellar_sdk import (
    AccountMerge,
    CreateAccount,
    HashMemo,
    IdMemo,
    Memo,
    Operation,
    Payment,
    ReturnHashMemo,
    TextMemo,
    TransactionEnvelope,
)

from paywatch.domain.checkout import CheckoutSession
from paywatch.domain.ledger import format_stroops
from paywatch.sim import Wallet
from paywatch.sim.network import Envelope
from paywatch.sim.wallet import NATIVE
from simulation.book import Book, Registered
from simulation.town import CUSTOMERS, SPOOF, USD, Town, memo_of, sdk_asset

MOST_ID: Final = 2**64 - 1
HOSTILE: Final[tuple[Memo, ...]] = (
    TextMemo(b"a\0b"),
    TextMemo(b"\xff\xfe\xfd"),
    TextMemo("🤑🤑🤑🤑🤑🤑🤑".encode()),
    TextMemo(b"'; DROP TABLE credits; --"),
    TextMemo(b"\xed\xa0\x80"),  # half of a surrogate pair
    TextMemo(b" 1 "),
    TextMemo(b"0" * 28),
    TextMemo(b"18446744073709551616"),
    TextMemo(b""),
    IdMemo(0),
    IdMemo(MOST_ID),
    IdMemo(2**63),
    HashMemo(b"\0" * 32),
    ReturnHashMemo(b"\xff" * 32),
)
REFERENCES: Final = 30  # that merchants choose themselves
AMOUNTS: Final = ("0.0000001", "1", "12.5", "3.3333333", "100")


@dataclass
class Customers:
    """Everybody who pays, by means of envelopes that are handed over for the next ledger."""

    town: Town
    book: Book
    rng: Random
    sent: list[str] = field(default_factory=list)  # hashes of what was taken, the last at the end
    _old: list[Envelope] = field(default_factory=list, init=False)
    _strangers: int = field(default=0, init=False)

    def act(self) -> None:
        """Do one thing."""
        self.rng.choice(self._ways)()

    def pay(self, session: CheckoutSession, amount: str | None = None) -> list[str]:
        """Pay a session in its own asset, by one of the ways that name it."""
        return self._submit(self._payment(session, amount or format_stroops(session.amount)))

    def payment(self, session: CheckoutSession) -> TransactionEnvelope:
        """Sign a payment of a session, and keep it."""
        return self._payment(session, format_stroops(session.amount), plainly=True)

    @property
    def _ways(self) -> list[Callable[[], object]]:
        often = [self._pay_one] * 8 + [self._pay_part] * 3 + [self._pay_by_contract] * 2
        return [
            *often,
            self._pay_too_much,
            self._pay_in_parts,
            self._pay_several,
            self._pay_twice_at_once,
            self._pay_again,
            self._pay_late,
            self._pay_wrong,
            self._pay_by_path,
            self._pay_by_path,
            self._pay_by_merging,
            self._pay_by_creating,
            self._pay_for_somebody,
            self._pay_nobody_yet,
            self._send_hostile,
            self._send_hostile,
            self._fail,
            self._repeat,
            self._pay_out,
            self._gossip,
        ]

    # who and what

    def _customer(self) -> Wallet:
        return self.town.wallet(self.rng.choice(CUSTOMERS))

    def _session(self) -> CheckoutSession | None:
        """One that is open mostly, of the last ones opened."""
        found = self.book.open(self.town.now)[-12:] or list(self.book.sessions.values())[-12:]
        return self.rng.choice(found) if found else None

    def _shop(self) -> Registered | None:
        return self.rng.choice(self.book.merchants) if self.book.merchants else None

    def _payment(
        self, session: CheckoutSession, amount: str, *, plainly: bool = False
    ) -> TransactionEnvelope:
        """By the memo, by the digits of an id as text, or by the muxed address."""
        payer, asset = self._customer(), sdk_asset(session.asset)
        way = "memo" if plainly else self.rng.choice(("memo", "memo", "text", "muxed"))
        if way == "muxed":
            beside = self.rng.choice((None, TextMemo(b"thanks"), IdMemo(7)))
            return payer.pay(self._muxed(session), amount, asset, beside)
        memo = memo_of(session)
        if way == "text" and isinstance(memo, IdMemo):
            memo = TextMemo(str(memo.memo_id))
        return payer.pay(session.account, amount, asset, memo)

    def _muxed(self, session: CheckoutSession) -> str:
        registered = self.book.merchant_of(session.account)
        assert registered is not None
        return self.town.wallet(registered.name).muxed(session.muxed_id)

    def _submit(self, *envelopes: Envelope) -> list[str]:
        taken = self.town.submit(*envelopes)
        self._old += envelopes
        self.sent += taken
        return taken

    def _part_of(self, session: CheckoutSession) -> str:
        return format_stroops(max(1, session.amount * self.rng.randint(1, 9) // 10))

    # the ways

    def _pay_one(self) -> None:
        if session := self._session():
            self.pay(session)

    def _pay_part(self) -> None:
        """A part; or just what the merchant tolerates, or a stroop less."""
        if session := self._session():
            least = session.terms.least_amount
            bounds = [format_stroops(amount) for amount in (least, max(1, least - 1))]
            self.pay(session, self.rng.choice([self._part_of(session), *bounds]))

    def _pay_too_much(self) -> None:
        if session := self._session():
            self.pay(session, format_stroops(session.amount + self.rng.randint(1, 10**8)))

    def _pay_in_parts(self) -> None:
        """Several operations of one transaction for one session."""
        if session := self._session():
            parts = [self._part_of(session) for _ in range(self.rng.randint(2, 4))]
            to, asset = session.account, sdk_asset(session.asset)
            paid: list[Operation] = [Payment(to, asset, part) for part in parts]
            self._submit(self._customer().build(paid, memo_of(session)))

    def _pay_several(self) -> None:
        """One transaction for several sessions, of any merchants, by muxed addresses."""
        found = self.book.open(self.town.now)[-6:]
        if found:
            paid: list[Operation] = [
                Payment(self._muxed(s), sdk_asset(s.asset), format_stroops(s.amount)) for s in found
            ]
            self._submit(self._customer().build(paid, TextMemo(b"all of it")))

    def _pay_twice_at_once(self) -> None:
        """Two customers, one ledger, one session."""
        if session := self._session():
            self.pay(session)
            self.pay(session)

    def _pay_again(self) -> None:
        """One that may be paid already."""
        if self.book.sessions:
            self.pay(self.rng.choice(list(self.book.sessions.values())))

    def _pay_late(self) -> None:
        over = [s for s in self.book.sessions.values() if s.expires_at <= self.town.now]
        soon = [s for s in over if s.expires_at > self.town.now - timedelta(seconds=90)]
        if over:
            self.pay(self.rng.choice(soon or over))

    def _pay_wrong(self) -> None:
        """The right session in another asset, or in one of the same code by a forger."""
        if session := self._session():
            asset = self.rng.choice(
                [a for a in (NATIVE, USD, SPOOF) if a != sdk_asset(session.asset)]
            )
            amount = format_stroops(session.amount)
            self._submit(self._customer().pay(session.account, amount, asset, memo_of(session)))

    def _pay_by_path(self) -> None:
        if session := self._session():
            payer, to, memo = self._customer(), session.account, memo_of(session)
            amount, asset = format_stroops(session.amount), sdk_asset(session.asset)
            if self.rng.random() < 0.5:
                envelope = payer.path_receive(to, amount, asset, send_max="50000", memo=memo)
            else:
                sent = self.rng.choice((amount, "80", "8"))
                envelope = payer.path_send(to, sent, asset, dest_min="0.0000001", memo=memo)
            self._submit(envelope)

    def _pay_by_contract(self) -> None:
        """A contract call names its session by the muxed address, or by nothing."""
        if session := self._session():
            to = self._muxed(session) if self.rng.random() < 0.8 else session.account
            self._submit(self._customer().transfer(to, session.amount, sdk_asset(session.asset)))

    def _pay_by_merging(self) -> None:
        """An account that exists for one ledger, and then goes to the shop with all it has."""
        session = self._session()
        name = f"stranger {self._strangers}"
        stranger = self.town.wallet(name)
        if not self.town.has(stranger.account_id):
            amount = format_stroops((session.amount if session else 0) + 20_000_000)
            made = CreateAccount(stranger.account_id, amount)
            self._submit(self._customer().build([made]))
        elif session is not None:
            to = self._muxed(session) if self.rng.random() < 0.5 else session.account
            self._submit(stranger.build([AccountMerge(to)], memo_of(session)))
            self._strangers += 1

    def _pay_by_creating(self) -> None:
        """A shop whose account is not on the ledger yet gets it by a payment."""
        if session := self._session():
            amount = format_stroops(max(session.amount, 20_000_000))
            made = CreateAccount(session.account, amount)
            self._submit(self._customer().build([made], memo_of(session)))

    def _pay_for_somebody(self) -> None:
        """A fee bump: the transaction is known by two hashes."""
        if session := self._session():
            inner = self._payment(session, format_stroops(session.amount))
            self._submit(self._customer().fee_bump(inner))

    def _pay_nobody_yet(self) -> None:
        """A reference that a merchant may choose later: what comes before pays nothing."""
        if shop := self._shop():
            number = self.rng.randint(1, REFERENCES)
            memo = self.rng.choice((IdMemo(number), TextMemo(f"order {number}")))
            self._submit(self._customer().pay(shop.account, "10", memo=memo))

    def _send_hostile(self) -> None:
        if shop := self._shop():
            memo, amount = self.rng.choice(HOSTILE), self.rng.choice(AMOUNTS)
            asset = self.rng.choice((NATIVE, NATIVE, USD, SPOOF))
            to = shop.account
            if self.rng.random() < 0.3:
                to = self.town.wallet(shop.name).muxed(self.rng.choice((0, 1, 2**63, MOST_ID)))
            self._submit(self._customer().pay(to, amount, asset, memo))

    def _fail(self) -> None:
        """A payment that looks as if it were one, in a transaction that fails."""
        if session := self._session():
            amount, asset = format_stroops(session.amount), sdk_asset(session.asset)
            paid = Payment(session.account, asset, amount)
            broken = Payment(session.account, USD, "900000000000")
            self._submit(self._customer().build([paid, broken], memo_of(session)))

    def _repeat(self) -> None:
        """Hand an envelope over again: of this ledger, or of one long closed."""
        if self._old:
            again = self.rng.choice(self._old[-20:])
            self.town.submit(again)
            if self.rng.random() < 0.5:
                self.town.submit(again)

    def _pay_out(self) -> None:
        """The shop's own money goes out, or round in a circle, with a session's memo."""
        session = self._session()
        shop = self.book.merchant_of(session.account) if session else None
        if session is None or shop is None or not self.town.has(shop.account):
            return
        wallet = self.town.wallet(shop.name)
        to = self.rng.choice(
            (self._customer().account_id, shop.account, wallet.muxed(session.muxed_id))
        )
        self._submit(wallet.pay(to, "1", memo=memo_of(session)))

    def _gossip(self) -> None:
        """Payments that are nobody's business here."""
        names = self.rng.sample(CUSTOMERS, 2)
        one, other = (self.town.wallet(name) for name in names)
        self._submit(*(one.pay(other.account_id, "1") for _ in range(self.rng.randint(1, 5))))

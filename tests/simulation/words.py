"""What merchants do: they register, open sessions, announce, and say what becomes of held credits.

All of it by paywatch's own services, in a process of its own beside the daemons, as the commands
are. Its connections to the database break as theirs do; it is never killed, so that what it was
told it has done is done.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Final, TypeVar
from uuid import UUID

from sqlalchemy import text
from stellar_sdk import Payment

from paywatch.domain.checkout import CheckoutSession
from paywatch.domain.ledger import format_stroops
from paywatch.domain.policy import Policy
from paywatch.domain.settlement import Outcome
from paywatch.errors import HorizonError, InvalidInput, NotFound
from paywatch.service.checkout import NewMerchant, SessionRequest
from paywatch.sim.history import after_ledger
from paywatch.store.held import CreditState
from paywatch.store.retry import DATABASE_ERRORS
from paywatch.wiring.house import House
from simulation.book import Book, Diary, Registered
from simulation.plan import LEDGER_S, MerchantPlan
from simulation.shops import Shops
from simulation.town import USD, Town, sdk_asset
from simulation.traffic import REFERENCES, Customers

AMOUNTS: Final = ("0.0000001", "0.5", "3", "7.1234567", "10", "25", "40")
SECONDS: Final = (5, 20, 45, 90, 180, 600)
TRIES: Final = 40  # of what has to succeed once
T = TypeVar("T")

_DEAD: Final = text(
    "SELECT event_id FROM deliveries WHERE state = 'dead' ORDER BY event_id LIMIT 20"
)
_BY_REFERENCE: Final = text("SELECT id FROM checkout_sessions WHERE reference = :reference")


@dataclass
class Words:
    """Everything merchants say."""

    house: House
    town: Town
    shops: Shops
    customers: Customers
    book: Book
    diary: Diary
    rng: Random
    kinds: Sequence[str]  # of things that are said besides
    is_registering: bool = False  # a secret is shown once: nothing may go wrong then
    _number: int = field(default=0, init=False)

    async def register(self, plan: MerchantPlan) -> None:
        """Register a merchant, tried again until it is there."""
        account = self.town.wallet(plan.name).account_id
        url = self.shops.url(len(self.book.merchants)) if plan.told else None
        self.is_registering = True
        merchant = await self._register(plan.name, account, url)
        self.is_registering = False
        self.book.merchants.append(Registered(plan.name, merchant))
        self.diary.note("words", f"registered {plan.name} {account}")
        await self._set_policy(merchant.merchant_id, plan)

    async def _register(self, name: str, account: str, url: str | None) -> NewMerchant:
        while True:
            try:
                return await self.house.checkout.create_merchant(name, account, url)
            except HorizonError as error:
                self.diary.note("words", f"not registered: {error}")
                await asyncio.sleep(1)

    async def act(self) -> None:
        """Do one thing; what cannot be done now is left."""
        if not self.book.merchants:
            return
        try:
            await self.rng.choice(self._ways)()
        except (InvalidInput, NotFound, HorizonError) as error:
            self.diary.note("words", f"refused: {type(error).__name__} {error}")

    @property
    def _ways(self) -> list[Callable[[], Awaitable[None]]]:
        all_kinds = {
            "announce": [self._announce] * 2,
            "apply": [self._apply],
            "return": [self._return],
            "resend": [self._resend],
            "enable": [self._enable],
            "change_policy": [self._change_policy],
        }
        said = [way for kind in self.kinds for way in all_kinds[kind]]
        return [*[self.open_session] * 8, *said]

    async def open_session(self) -> None:
        """Open a session of any kind; a connection that is lost leaves open whether it is there."""
        shop = self.rng.choice(self.book.merchants)
        self._number += 1
        memo_type = self.rng.choice(("id", "id", "id", "text", "hash"))
        own = self.rng.random() < 0.3
        request = SessionRequest(
            merchant_id=shop.merchant.merchant_id,
            amount=self.rng.choice(AMOUNTS),
            asset=self.rng.choice(("native", "native", f"USD:{USD.issuer}")),
            memo_type=memo_type,
            memo=self._own_memo(memo_type) if own else None,
            expires_in=timedelta(seconds=self.rng.choice(SECONDS)),
            reference=f"order-{self._number}",
        )
        session = await self._open(request)
        self.book.sessions[session.id] = session
        self.book.opened_at[session.id] = self.town.latest
        if session.opened_position > after_ledger(self.town.latest):
            self.diary.alarm(f"{session.id} was opened at {session.opened_position}, in the future")
        self.diary.note(
            "words",
            f"opened {session.id} {session.reference}: {session.amount} {session.asset.code}"
            f" until {session.expires_at}",
        )

    def _own_memo(self, memo_type: str) -> str:
        """A reference of the merchant's; some come twice, and are refused then."""
        number = self.rng.randint(1, REFERENCES)
        return {"id": str(number), "text": f"order {number}", "hash": f"{number:064x}"}[memo_type]

    async def _open(self, request: SessionRequest) -> CheckoutSession:
        while True:
            try:
                return await self.house.checkout.create_session(request)
            except DATABASE_ERRORS:
                if (found := await self._find(request.reference)) is not None:
                    return found
                await asyncio.sleep(1)

    async def _find(self, reference: str | None) -> CheckoutSession | None:
        async def find() -> UUID | None:
            async with self.house.engine.connect() as conn:
                found = await conn.execute(_BY_REFERENCE, {"reference": reference})
                return found.scalar_one_or_none()

        id_ = await self._until_done(find)
        if id_ is None:
            return None
        return (await self._until_done(lambda: self.house.checkout.read_session(id_))).session

    async def _announce(self) -> None:
        """Name a transaction: to come, there already, failed, another's, or made up."""
        sessions = self.book.open(self.town.now)[-8:]
        if not sessions:
            return
        session = self.rng.choice(sessions)
        way = self.rng.choice(("coming", "coming", "there", "made up"))
        tx_hash = self.rng.randbytes(32).hex()
        if way == "coming":
            envelope = self.customers.payment(session)
            tx_hash = envelope.hash().hex()
            if self.rng.random() < 0.7:
                self.town.submit(envelope)
        elif way == "there" and self.customers.sent:
            tx_hash = self.rng.choice(self.customers.sent[-10:])
        self.book.announced.add(tx_hash)
        announced = await self._until_done(
            lambda: self.house.announcements.announce(session.id, tx_hash)
        )
        self.diary.note("words", f"announced {way} for {session.id}: {announced.status}")

    async def _held(self) -> CreditState | None:
        found = await self._until_done(
            lambda: self.house.held.read_list(None, None, resolved=False, limit=30)
        )
        return self.rng.choice(found) if found else None

    async def _apply(self) -> None:
        """Apply a held credit to a session that may take it, or may not."""
        held = await self._held()
        if held is None:
            return
        fitting = [
            s for s in self.book.sessions.values()
            if s.account == held.credit.account and s.asset == held.credit.asset
        ]  # fmt: skip
        if fitting:
            session = self.rng.choice(fitting)
            await self._until_done(lambda: self.house.held.apply(held.credit.key, session.id))
            self.book.applied[held.credit.key] = session.id
            self.diary.note("words", f"applied {held.credit.name} to {session.id}")

    async def _return(self) -> None:
        """Pay a held credit back, and say so when the ledger has it."""
        held = await self._held()
        shop = self.book.merchant_of(held.credit.account) if held else None
        if held is None or shop is None or held.outcome is Outcome.APPLIED:
            return
        credit = held.credit
        if not self.town.has(shop.account):
            return
        asset = sdk_asset(credit.asset)
        paid = Payment(credit.payer, asset, format_stroops(credit.amount))
        for tx_hash in self.town.submit(self.town.wallet(shop.name).build([paid])):
            await asyncio.sleep(self.rng.randint(1, 4) * LEDGER_S)
            await self._until_done(lambda h=tx_hash: self.house.held.mark_returned(credit.key, h))  # type: ignore[misc] # bound now
            self.book.returned[credit.key] = tx_hash
            self.diary.note("words", f"returned {credit.name} by {tx_hash}")

    async def _resend(self) -> None:
        """Have a dead letter sent again."""

        async def read() -> list[UUID]:
            async with self.house.engine.connect() as conn:
                return list((await conn.execute(_DEAD)).scalars())

        dead = await self._until_done(read)
        if dead:
            event_id = self.rng.choice(dead)
            await self._until_done(lambda: self.house.letters.resend(event_id))
            self.diary.note("words", f"resent {event_id}")

    async def _enable(self) -> None:
        """Enable an endpoint, whether it was disabled or not."""
        shop = self.rng.choice(self.book.merchants)
        await self._until_done(
            lambda: self.house.letters.enable_endpoint(shop.merchant.merchant_id)
        )

    async def _change_policy(self) -> None:
        """Sessions that are open keep their terms."""
        shop = self.rng.choice(self.book.merchants)
        policy = Policy(self.rng.choice((0, 50, 500)), None, text_for_id=self.rng.random() < 0.5)
        await self._until_done(
            lambda: self.house.checkout.change_policy(shop.merchant.merchant_id, lambda _: policy)
        )

    async def _set_policy(self, merchant_id: UUID, plan: MerchantPlan) -> None:
        grace = None if plan.late_grace_s is None else timedelta(seconds=plan.late_grace_s)
        policy = Policy(plan.tolerance_bps, grace, plan.text_for_id)
        await self._until_done(
            lambda: self.house.checkout.change_policy(merchant_id, lambda _: policy)
        )

    async def _until_done(self, run: Callable[[], Awaitable[T]]) -> T:
        """Repeat what a lost connection has broken; every one of these may be said twice."""
        for _ in range(TRIES):
            try:
                return await run()
            except DATABASE_ERRORS as error:
                self.diary.note("words", f"again: {type(error).__name__}")
                await asyncio.sleep(1)
        raise TimeoutError("merchants could not reach the database")

"""A shop and its customers on the simulated network, and the ways in which they pay."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from stellar_sdk import (
    Asset,
    ChangeTrust,
    CreateAccount,
    IdMemo,
    Memo,
    MuxedAccount,
    Payment,
    TransactionEnvelope,
)

from paywatch.cli.demo.scene import ISSUER, USD, USD_PER_LUMEN, Scene
from paywatch.domain.checkout import CheckoutSession
from paywatch.domain.ledger import MAX_UINT64, format_stroops
from paywatch.service.checkout import NewMerchant, SessionRequest
from paywatch.sim.history import AppliedTx
from paywatch.sim.wallet import NATIVE, Wallet

START_LUMENS: Final = "1000000"
START_USD: Final = "100000"


@dataclass(frozen=True)
class Town:
    """Accounts with money, and a merchant that paywatch knows."""

    scene: Scene
    merchant: NewMerchant
    customer: Wallet

    async def open_session(self, way: "Way") -> CheckoutSession:
        """Open a session that this way of paying is for."""
        asset = f"{USD.code}:{USD.issuer}" if way.in_usd else "native"
        return await self.scene.house.checkout.create_session(
            SessionRequest(self.merchant.merchant_id, way.amount, asset, reference=way.name)
        )

    async def pay(self, way: "Way", session: CheckoutSession) -> list[AppliedTx]:
        """Hand in this way's envelopes and wait until a ledger has closed with them."""
        return await settle_on(self.scene, way.envelopes(self, session))


async def settle_on(scene: Scene, envelopes: Sequence[TransactionEnvelope]) -> list[AppliedTx]:
    """Submit envelopes and wait for their ledger."""
    network = scene.network
    hashes = network.submit(*envelopes)

    def applied() -> list[AppliedTx] | None:
        found = [tx for tx in map(network.ledger.history.tx, hashes) if tx is not None]
        return found if len(found) == len(hashes) else None

    return await network.changed.wait_for(applied)


async def build_town(scene: Scene) -> Town:
    """Make a shop and a customer, give them money, and register the merchant."""
    network, tag = scene.network, scene.network.ledger.latest.sequence
    issuer = network.wallet(ISSUER)
    shop, customer = (network.wallet(f"{name} {tag}") for name in ("shop", "customer"))
    # A directory that was used before has the issuer already.
    is_new = network.ledger.state.account(issuer.account_id) is None
    made = [shop, customer, issuer] if is_new else [shop, customer]
    opening = [CreateAccount(wallet.account_id, START_LUMENS) for wallet in made]
    await settle_on(scene, [network.root.build(opening)])
    await settle_on(scene, [wallet.build([ChangeTrust(USD)]) for wallet in (shop, customer)])
    await settle_on(scene, [issuer.build([Payment(customer.account_id, USD, START_USD)])])
    url = f"{scene.merchant.url}/webhooks"
    merchant = await scene.house.checkout.create_merchant("Demo shop", shop.account_id, url)
    return Town(scene, merchant, customer)


Envelopes = Callable[[Town, CheckoutSession], Sequence[TransactionEnvelope]]


@dataclass(frozen=True, slots=True)
class Way:
    """A way of paying a session; `pays` says whether the session is paid by it."""

    name: str
    amount: str
    envelopes: Envelopes
    in_usd: bool = False
    pays: bool = True


def _memo(session: CheckoutSession) -> Memo:
    return IdMemo(int(str(session.memo)))


def _asset(session: CheckoutSession) -> Asset:
    return NATIVE if session.asset.is_native else USD


def _shares(*percentages: int) -> Envelopes:
    """Pay so many percent of the amount each time, named by the memo."""

    def envelopes(town: Town, session: CheckoutSession) -> list[TransactionEnvelope]:
        return [
            town.customer.pay(
                session.account,
                format_stroops(session.amount * percentage // 100),
                _asset(session),
                _memo(session),
            )
            for percentage in percentages
        ]

    return envelopes


def _to_muxed(town: Town, session: CheckoutSession) -> list[TransactionEnvelope]:
    muxed = MuxedAccount(session.account, session.muxed_id).account_muxed
    assert muxed is not None  # noqa: S101 # an id was given
    return [town.customer.pay(muxed, format_stroops(session.amount), _asset(session))]


def _by_path(town: Town, session: CheckoutSession) -> list[TransactionEnvelope]:
    """Spend lumens; the shop receives exactly what it asks for in its own asset."""
    return [
        town.customer.path_receive(
            session.account,
            format_stroops(session.amount),
            USD,
            send_max=format_stroops(2 * int(session.amount / USD_PER_LUMEN)),
            memo=_memo(session),
        )
    ]


def _wrong_memo(town: Town, session: CheckoutSession) -> list[TransactionEnvelope]:
    memo = IdMemo(MAX_UINT64 - random.randrange(1000))  # above all that paywatch gives
    return [town.customer.pay(session.account, format_stroops(session.amount), memo=memo)]


THREE_WAYS: Final = (
    Way("native", "12.5", _shares(100)),
    Way("credit asset", "20", _shares(100), in_usd=True),
    Way("path payment", "7.25", _by_path, in_usd=True),
)
MORE_WAYS: Final = (
    Way("two part payments", "30", _shares(40, 60)),
    Way("muxed address, no memo", "5", _to_muxed),
    Way("too much", "8", _shares(150), in_usd=True),
    Way("too little", "9", _shares(50), pays=False),
    Way("wrong memo", "4", _wrong_memo, pays=False),
    Way("paid twice", "6", _shares(100, 100)),
)

"""The simulated network's market: one maker that trades any amount at fixed rates.

It stands for the order book: a path payment converts at the rate of the day, hop by hop, and its
result names the maker's offers as Stellar names the offers that were crossed. The maker is no
account of the ledger and never runs dry.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Final

from stellar_sdk import Asset, Keypair

MAKER: Final = Keypair.from_raw_ed25519_seed(b"paywatch simulated market maker!").public_key


@dataclass(frozen=True, slots=True)
class Trade:
    """One hop: the maker bought `bought` of one asset and sold `sold` of another, in stroops."""

    offer_id: int
    asset_bought: Asset
    bought: int
    asset_sold: Asset
    sold: int


class Rates:
    """How many units of one asset the maker gives for one of another.

    Args:
        rates: (asset given to the maker, asset got from it) -> units got for one unit given. The
            other direction follows from it.
    """

    def __init__(self, rates: Mapping[tuple[Asset, Asset], Fraction] | None = None) -> None:
        self._rates: dict[tuple[Asset, Asset], Fraction] = {}
        self._offers: dict[tuple[Asset, Asset], int] = {}
        for (given, got), rate in (rates or {}).items():
            self.set(given, got, rate)

    def set(self, given: Asset, got: Asset, rate: Fraction) -> None:
        """Fix a rate, and its inverse.

        Raises:
            ValueError: the rate is not above zero.
        """
        if rate <= 0:
            raise ValueError(f"rate: must be above zero, not {rate}")
        self._rates[given, got] = rate
        self._rates[got, given] = 1 / rate
        for pair in ((given, got), (got, given)):
            self._offers.setdefault(pair, len(self._offers) + 1)

    def send(self, amount: int, path: list[Asset]) -> list[Trade] | None:
        """Convert exactly `amount` stroops along a path; None where no offer stands."""
        trades = []
        for given, got in _hops(path):
            rate = self._rates.get((given, got))
            if rate is None:
                return None
            sold = int(amount * rate)  # rounded down, in the maker's favour
            trades.append(Trade(self._offers[given, got], given, amount, got, sold))
            amount = sold
        return trades

    def receive(self, amount: int, path: list[Asset]) -> list[Trade] | None:
        """Convert what is needed to get exactly `amount` stroops at the end of a path."""
        trades = []
        for given, got in reversed(_hops(path)):
            rate = self._rates.get((given, got))
            if rate is None:
                return None
            bought = -int(-amount // rate)  # rounded up, in the maker's favour
            trades.append(Trade(self._offers[given, got], given, bought, got, amount))
            amount = bought
        return trades[::-1]


def _hops(path: list[Asset]) -> list[tuple[Asset, Asset]]:
    return [(a, b) for a, b in pairwise(path) if a != b]

"""Reading everybody's payments for the few that are ours, beside parsing their JSON alone."""

import asyncio
import json
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Container, Sequence
from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import Any, Final

import aiohttp

from bench.benchmark import Benchmark
from bench.crowd import LEDGER_OPERATIONS, SHARE, Crowd
from bench.machine import describe
from bench.result import Comparison, Contestant, Result
from bench.rounds import by_turns
from paywatch.domain.ledger import Position
from paywatch.horizon.documents import PAGE_LIMIT, Root
from paywatch.horizon.pages import Page
from paywatch.horizon.strict_json import parse_object
from paywatch.sim import NetworkSettings, SimNetwork
from support import address

FEW: Final = 10  # accounts
CAP: Final = 2**25  # bytes of a page
GOAL: Final = 0.5

ABOUT: Final = """\
A daemon in mode `network` reads everybody's payments and keeps those to the accounts that it
watches. Pages of a network on which one operation of a hundred is for a watched account lie in
memory, as Horizon wrote them. They are parsed by Python's `json.loads` and thrown away; and they
are read as the daemon reads them, up to the batch that would be settled: parsed strictly, checked
for their order, and filtered. The accounts are in a set: a thousand times as many make it larger
(1.6 MB, which fits into a processor's cache) and a look-up hardly longer. Told is the time of the
processor, garbage collection included. Fetching and settling are left out.
"""


class Pages:
    """Pages of a busy network, and the accounts that are watched there."""

    def __init__(self, bodies: Sequence[bytes], root: Root, watched: Sequence[str]) -> None:
        self.bodies = bodies
        self._root = root
        self._watched = watched
        self.records = sum(len(_records(body)) for body in bodies)

    @classmethod
    async def of(cls, number: int, accounts: int, rng: Random) -> "Pages":
        """Let a network write so many pages while so many accounts are watched."""
        settings = NetworkSettings(started_at=datetime(2026, 11, 20, tzinfo=UTC))
        async with SimNetwork(settings) as network, aiohttp.ClientSession() as http:
            crowd = Crowd(network, [address(f"watched {n}") for n in range(accounts)])
            ledgers = -(-number * PAGE_LIMIT // LEDGER_OPERATIONS)
            await crowd.open(ledgers * LEDGER_OPERATIONS // SHARE)
            after = Position.after_ledger(network.ledger.latest.sequence)
            for _ in range(ledgers):
                await crowd.close_ledger(rng)
            async with http.get(f"{network.url}/") as answer:
                root = Root.parse(await answer.json())
            bodies = []
            for _ in range(number):
                query = {"cursor": str(after), "limit": str(PAGE_LIMIT), "join": "transactions"}
                async with http.get(f"{network.url}/payments", params=query) as answer:
                    bodies.append(await answer.read())
                after = Position(int(_records(bodies[-1])[-1]["paging_token"]))
            return cls(bodies, root, crowd.watched)

    def contestants(self) -> dict[str, Callable[[], float]]:
        """Give what is measured, by name."""
        few, many = frozenset(self._watched[:FEW]), frozenset(self._watched)
        readers: dict[str, Callable[[bytes], object]] = {
            "JSON parsed": _records,
            f"{FEW} accounts": partial(self._filtered, few),
            f"{len(many):,} accounts": partial(self._filtered, many),
        }
        return {name: partial(self._rate, read) for name, read in readers.items()}

    def require_found(self) -> None:
        """Refuse figures of a filter that does not find what is ours: one in SHARE.

        Raises:
            AssertionError: saying how many were found.
        """
        found = sum(self._filtered(frozenset(self._watched), body) for body in self.bodies)
        assert found == self.records // SHARE, f"{found} of {self.records} records are ours"

    def _filtered(self, watched: Container[str], body: bytes) -> int:
        records = parse_object(body, CAP)["_embedded"]["records"]
        return len(Page.of(records, Position(0), self._root).batch(watched).records)

    def _rate(self, read: Callable[[bytes], object]) -> float:
        began = time.process_time()
        for body in self.bodies:
            read(body)
        return self.records / (time.process_time() - began)


def _records(body: bytes) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads(body)["_embedded"]["records"]
    return records


def add_arguments(parser: ArgumentParser) -> None:
    """Add how many accounts are watched, and how many pages are read in a round."""
    parser.add_argument("--accounts", type=int, default=10_000)
    parser.add_argument("--pages", type=int, default=50, help=f"of {PAGE_LIMIT} records")
    parser.add_argument("--seed", type=int, default=20_261_120)


def measure(options: Namespace) -> Result:
    """Measure all of them."""
    pages = asyncio.run(Pages.of(options.pages, options.accounts, Random(options.seed)))
    pages.require_found()
    rates = by_turns(pages.contestants(), options.rounds)
    bare, few, many = rates
    about = {
        bare: "`json.loads`, and nothing done",
        few: "parsed, checked and filtered",
        many: "the same",
    }
    return Result(
        "filtering",
        "records a second",
        tuple(Contestant(n, tuple(r), n != bare, about[n]) for n, r in rates.items()),
        (Comparison(many, bare, GOAL), Comparison(few, bare), Comparison(many, few)),
        {"pages": options.pages, "records on each": PAGE_LIMIT, "seed": options.seed},
        describe(),
    )


BENCHMARK: Final = Benchmark(
    "filtering", "Filtering everybody's payments", ABOUT, measure, add_arguments, rounds=11
)

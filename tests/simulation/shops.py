"""The merchants' servers: what they answer, and what they check of every webhook that comes."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Final

from paywatch.sim import Answer, Merchant, ReceivedWebhook
from simulation.book import Book, Diary, Registered
from simulation.plan import AnswerRates

ATTEMPT_S: Final = 15.0  # what a sender waits for an answer
TYPES: Final = frozenset({"checkout.session.paid", "checkout.session.expired", "payment.unapplied"})
ELSEWHERE: Final = "/moved"


@dataclass(frozen=True, slots=True)
class Told:
    """What one endpoint was told: a type and its subject, a session or a credit."""

    path: str
    type: str
    subject: str


@dataclass
class Shops:
    """All merchants' servers, which share one address; each merchant has a path.

    Attributes:
        told: by what it tells: the `webhook-id` and the exact body, which never change.
        taken: what was answered with 2xx, as far as the merchant knows.
        is_ill: whether answers go wrong.
        written: the body of an event as it stands in the database, by its id; None if it does not.
        now: the merchants' clock; None where paywatch's clocks are wrong, and so are signatures'.
    """

    merchant: Merchant
    book: Book
    diary: Diary
    rates: AnswerRates
    rng: Random
    written: Callable[[str], bytes | None]
    now: Callable[[], datetime] | None
    told: dict[Told, tuple[str, bytes]] = field(default_factory=dict)
    taken: set[Told] = field(default_factory=set)
    is_ill: bool = False
    _ids: dict[str, Told] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.merchant.answer_by = self.receive

    def url(self, number: int) -> str:
        """Where the webhooks of a merchant go."""
        return f"{self.merchant.url}/{number}"

    def receive(self, webhook: ReceivedWebhook) -> Answer:
        """Check a webhook, and say how it is answered; one that breaks the checks is an alarm."""
        try:
            return self._receive(webhook)
        except Exception as error:  # else it would be one more answer with 500
            self.diary.alarm(f"webhook {webhook.id} to {webhook.path} broke a check: {error!r}")
            raise

    def _receive(self, webhook: ReceivedWebhook) -> Answer:
        if webhook.path == ELSEWHERE:
            self.diary.alarm("a redirect was followed")
            return Answer()
        told = self._told(webhook)
        for problem in self._problems(webhook, told):
            self.diary.alarm(f"webhook {webhook.id} to {webhook.path}: {problem}")
        kind, answer = self._answer(webhook.path)
        self.diary.note("shops", f"{webhook.path} {webhook.id} {told.type}: {kind or 200}")
        if kind:
            self.diary.fault("shops", f"answer_{kind}")
        if 200 <= answer.status <= 299 and not (answer.hang or answer.reset):
            self.taken.add(told)
        return answer

    def _problems(self, webhook: ReceivedWebhook, told: Told) -> Iterator[str]:
        owner = self.owner(webhook.path)
        now_s = None if self.now is None else self.now().timestamp()
        if not webhook.verified_by(owner.merchant.webhook_secret or "", now_s):
            yield f"is not signed by the secret of {owner.name}, or not now: {webhook.headers}"
        if self.written(webhook.id) != webhook.body:
            yield "is not written so in the database, and told all the same"
        if told.type not in TYPES:
            yield f"is of the unknown type {told.type}"
        said = (webhook.id, webhook.body)
        if (first := self.told.setdefault(told, said)) != said:
            yield f"{told} was {first} before, and is {said}"
        if self._ids.setdefault(webhook.id, told) != told:
            yield f"tells {told}, and told {self._ids[webhook.id]} before"

    def owner(self, path: str) -> Registered:
        """Say whose path it is."""
        return self.book.merchants[int(path.removeprefix("/"))]

    @staticmethod
    def _told(webhook: ReceivedWebhook) -> Told:
        payload = json.loads(webhook.body)
        data = payload["data"]
        unapplied = payload["type"] == "payment.unapplied"
        return Told(webhook.path, payload["type"], data["credit" if unapplied else "session_id"])

    def _answer(self, path: str) -> tuple[str, Answer]:
        """Draw the answer; every kind is drawn for, so that one moves no other's draws."""
        rng, rates = self.rng, self.rates
        drawn = {name: rng.random() < getattr(rates, name) for name in _KINDS}
        delay_s, seconds = rng.uniform(0.5, 12), rng.choice((1, 30, 600))
        kind = next((name for name, hit in drawn.items() if hit and self.is_ill), "")
        if not kind:
            return "", Answer(delay_s=rng.choice((0.0, 0.01, 0.2)))
        if kind == "gone":
            self.book.gone.add(path)
        return kind, _KINDS[kind](delay_s, seconds)


_KINDS: Final[dict[str, Callable[[float, int], Answer]]] = {
    "gone": lambda _, __: Answer(status=410),
    "hang": lambda _, __: Answer(hang=True),
    "reset": lambda _, __: Answer(reset=True),
    "error": lambda _, __: Answer(status=500, body=b"\xff\0 out of order"),
    "slow_down": lambda _, after_s: Answer(status=429, headers={"Retry-After": str(after_s)}),
    "redirect": lambda _, __: Answer(status=302, headers={"Location": ELSEWHERE}),
    "slow": lambda delay_s, _: Answer(delay_s=delay_s),
    "huge": lambda _, __: Answer(padding=1 << 20),
}

"""A merchant whose server fails now and then, in one of the ways in which servers fail."""

from collections import Counter
from random import Random
from typing import Final

from paywatch.sim import Answer, Merchant

_ANSWERS: Final = (
    Answer(status=500),
    Answer(status=503, headers={"Retry-After": "1"}),
    Answer(status=429, headers={"Retry-After": "2"}),
    Answer(status=302, headers={"Location": "/elsewhere"}),
    Answer(status=404, padding=200_000),
    Answer(reset=True),
    Answer(delay_s=2.0),
    Answer(hang=True),
)


class Moody(Merchant):
    """A merchant whose server fails now and then, and who counts what came.

    Attributes:
        got: how often each webhook was taken, by its id: received, and answered with 200.
        received_total: with those that were not answered so.
    """

    def __init__(self, rng: Random, fault_rate: float) -> None:
        super().__init__()
        self._rng = rng
        self._took: list[bool] = []  # whether each of `received` is answered with 200
        self.fault_rate = fault_rate
        self.got: Counter[str] = Counter()
        self.received_total = 0
        self.faults = 0

    def _next_answer(self, path: str) -> Answer:
        self.note()
        answer = super()._next_answer(path)
        if self._rng.random() < self.fault_rate:
            self.faults += 1
            answer = self._rng.choice(_ANSWERS)
        self._took.append(answer.status == 200 and not answer.reset and not answer.hang)
        return answer

    def note(self) -> None:
        """Count what came, and forget it."""
        took = list(zip(self.received, self._took, strict=True))
        self.got.update(webhook.id for webhook, was_taken in took if was_taken)
        self.received_total += len(took)
        self.received.clear()
        self._took.clear()

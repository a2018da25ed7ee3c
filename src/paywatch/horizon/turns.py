"""One question to several instances: which are asked it, and what their refusals come to."""

from paywatch.errors import (
    HistoryGap,
    HorizonError,
    HorizonUnavailable,
    NetworkReset,
    WrongNetwork,
)
from paywatch.horizon.breaker import BreakerState
from paywatch.horizon.choice import Grade
from paywatch.horizon.instance import Instance


class Turn:
    """The refusals of one question.

    Args:
        size: how many instances there are.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._refusals: list[tuple[Instance, HorizonError]] = []

    def note(self, instance: Instance, error: HorizonError) -> None:
        """Take down why an instance did not answer."""
        self._refusals.append((instance, error))

    def goes_on(self, grade: Grade, in_time: bool) -> bool:
        """Say whether an instance of a grade is asked after those that refused.

        One that fails only for what the others cannot give at all. A reset is no lagging
        instance's to deny: one that is behind may serve the history that has ended.
        """
        if not self._refusals:
            return True
        if not in_time or grade is Grade.FOREIGN:
            return False
        if self._have(NetworkReset):
            return grade is not Grade.BEHIND
        return grade < Grade.FAILING or self._have(HistoryGap)

    def verdict(self) -> HorizonError:
        """Give the error that the refusals come to.

        What no instance that answers can go on from must be told; what one that usually answers
        could not say just now is asked again first.
        """
        if self._size == 1:
            return self._refusals[0][1]
        unavailable = [
            (instance, error)
            for instance, error in self._refusals
            if isinstance(error, HorizonUnavailable)
        ]
        is_usual = any(found.breaker is BreakerState.CLOSED for found, _ in unavailable)
        if self._have(HistoryGap) and not is_usual:
            return HistoryGap(self._said(), self._elder())
        if self._have(NetworkReset) and not is_usual:
            return NetworkReset(self._said())
        if unavailable:
            # The shortest of the waits that were asked for: one that is back is enough.
            _, soonest = min(unavailable, key=lambda refusal: refusal[1].retry_after or 0.0)
            return HorizonUnavailable(soonest.reason, self._said(), soonest.retry_after)
        return WrongNetwork(self._said())

    def _elder(self) -> int | None:
        """The oldest ledger that any of them keeps: an operator loses what none has."""
        gaps = [error.elder for _, error in self._refusals if isinstance(error, HistoryGap)]
        return min((elder for elder in gaps if elder is not None), default=None)

    def _have(self, kind: type[HorizonError]) -> bool:
        return any(isinstance(error, kind) for _, error in self._refusals)

    def _said(self) -> str:
        return "; ".join(f"{instance.name}: {error}" for instance, error in self._refusals)

"""What goes wrong between Horizon and its readers, on a seed or on command.

Faults are drawn at three moments: a plain request (`PAGE`), the opening of a stream (`STREAM`),
and before each event of an open stream (`EVENT`). Each moment has a random number generator of
its own, so that the same requests in the same order meet the same faults. Only reading is
disturbed: submissions and the friendbot are not.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Moment(StrEnum):
    """When a fault can happen."""

    PAGE = "page"
    STREAM = "stream"
    EVENT = "event"


class Fault(StrEnum):
    """What can go wrong."""

    END_OF_STREAM = "end_of_stream"
    """The stream ends without a goodbye."""
    CUT = "cut"
    """The connection breaks in the middle of an event or a body."""
    MALFORMED = "malformed"
    """An event's JSON is broken although its id is right; a page's JSON likewise."""
    ERROR_EVENT = "error_event"
    """`event: error` with plain text, then the end."""
    NOT_FOUND = "not_found"
    RATE_LIMITED = "rate_limited"
    """429 with `Retry-After`."""
    RATE_LIMITED_BARE = "rate_limited_bare"
    """429 without any of its headers, as on opening a stream."""
    SERVER_ERROR = "server_error"
    UNAVAILABLE = "unavailable"
    """503 in plain text, from the throttle."""
    GATEWAY_TIMEOUT = "gateway_timeout"
    """504 without a body."""
    HTML = "html"
    """A proxy's page, with status 200."""
    HANG = "hang"
    """Nothing more is sent until the client gives up."""
    REPLAY = "replay"
    """Records that were sent before are sent again, first."""
    DELAY = "delay"


_HTTP: Final = frozenset({Moment.PAGE, Moment.STREAM})
_ALL: Final = frozenset(Moment)
WHERE: Final[dict[Fault, frozenset[Moment]]] = {
    Fault.END_OF_STREAM: frozenset({Moment.EVENT}),
    Fault.CUT: frozenset({Moment.PAGE, Moment.EVENT}),
    Fault.MALFORMED: frozenset({Moment.PAGE, Moment.EVENT}),
    Fault.ERROR_EVENT: frozenset({Moment.EVENT}),
    Fault.NOT_FOUND: _HTTP,
    Fault.RATE_LIMITED: _HTTP,
    Fault.RATE_LIMITED_BARE: _HTTP,
    Fault.SERVER_ERROR: _HTTP,
    Fault.UNAVAILABLE: _HTTP,
    Fault.GATEWAY_TIMEOUT: _HTTP,
    Fault.HTML: _HTTP,
    Fault.HANG: _ALL,
    Fault.REPLAY: frozenset({Moment.PAGE, Moment.EVENT}),
    Fault.DELAY: _ALL,
}


@dataclass(frozen=True, slots=True)
class FaultRule:
    """How often one fault happens.

    Args:
        fault: which.
        rate: the share of its moments that it strikes, from 0 to 1.
        at: the moments; all that it can strike if None.
        path: strikes only paths that hold this text.
    """

    fault: Fault
    rate: float
    at: Moment | None = None
    path: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            ValueError: naming the field.
        """
        if not 0 <= self.rate <= 1:
            raise ValueError(f"rate: must be between 0 and 1, not {self.rate}")
        _check(self.fault, self.at)

    def strikes(self, moment: Moment, path: str) -> bool:
        """Whether the rule is about such a request."""
        return moment in ({self.at} if self.at else WHERE[self.fault]) and self.path in path


@dataclass(frozen=True, slots=True)
class FaultSettings:
    """All faults of a run.

    Args:
        rules: each is drawn for on its own, in this order; the first that strikes counts.
        seed: the same seed gives the same faults.
        delay_s: the longest delay, in seconds.
        retry_after_s: what `Retry-After` says.
        replayed: how many records a replay sends again.
    """

    rules: tuple[FaultRule, ...] = ()
    seed: int = 0
    delay_s: float = 0.05
    retry_after_s: int = 1
    replayed: int = 3

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            ValueError: naming the field.
        """
        for name in ("delay_s", "retry_after_s", "replayed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: must not be negative")

    @classmethod
    def everything(cls, rate: float, seed: int) -> "FaultSettings":
        """Every fault at one rate."""
        return cls(tuple(FaultRule(fault, rate) for fault in Fault), seed)


@dataclass(slots=True)
class ScriptedFault:
    """A fault that will strike once; `consumed` is set when it has."""

    fault: Fault
    at: Moment | None
    path: str
    consumed: asyncio.Event = field(default_factory=asyncio.Event)

    def strikes(self, moment: Moment, path: str) -> bool:
        """Whether it is meant for such a request."""
        return moment in ({self.at} if self.at else WHERE[self.fault]) and self.path in path


class Faults:
    """Decides what goes wrong; scripted faults go before drawn ones.

    Attributes:
        struck: how often each fault has happened.
    """

    def __init__(self, settings: FaultSettings | None = None) -> None:
        self.settings = settings or FaultSettings()
        self.enabled = True
        self.struck: Counter[Fault] = Counter()
        self._script: list[ScriptedFault] = []
        seed = self.settings.seed
        self._random = {moment: random.Random(f"{seed}/{moment}") for moment in Moment}

    def next(self, fault: Fault, at: Moment | None = None, path: str = "") -> ScriptedFault:
        """Let the next request (or event) of that kind meet a fault.

        Raises:
            ValueError: the fault cannot happen at that moment.
        """
        _check(fault, at)
        scripted = ScriptedFault(fault, at, path)
        self._script.append(scripted)
        return scripted

    def script(self, faults: Iterable[Fault], at: Moment | None = None) -> list[ScriptedFault]:
        """Queue several faults, to strike one after the other."""
        return [self.next(fault, at) for fault in faults]

    def stop(self) -> None:
        """From now on nothing goes wrong."""
        self.enabled = False
        self._script.clear()

    def draw(self, moment: Moment, path: str) -> Fault | None:
        """What happens to this request or event; None is nothing."""
        found = self._draw(moment, path)
        if found is not None:
            self.struck[found] += 1
        return found

    def _draw(self, moment: Moment, path: str) -> Fault | None:
        for index, scripted in enumerate(self._script):
            if scripted.strikes(moment, path):
                del self._script[index]
                scripted.consumed.set()
                return scripted.fault
        if not self.enabled:
            return None
        found = None
        for rule in self.settings.rules:
            if rule.strikes(moment, path):
                # Drawn for every rule, so that one that strikes does not move the others' draws.
                hit = self._random[moment].random() < rule.rate
                found = found or (rule.fault if hit else None)
        return found

    def delay_s(self, moment: Moment) -> float:
        """How long a delay lasts, in seconds."""
        return self._random[moment].uniform(0, self.settings.delay_s)


def _check(fault: Fault, at: Moment | None) -> None:
    if at is not None and at not in WHERE[fault]:
        places = ", ".join(sorted(WHERE[fault]))
        raise ValueError(f"at: {fault} happens only at {places}, not at {at}")

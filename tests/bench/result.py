"""What one run of a benchmark found, as it is kept in `docs/figures`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from statistics import median
from typing import Any, Self

DIGITS = 4  # significant ones: more would be noise


class Sense(StrEnum):
    """On which side of its goal a figure has to be."""

    AT_LEAST = "at least"
    AT_MOST = "at most"


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of several figures, and how far they lie apart."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Self:
        """Sum figures up; there must be one."""
        return cls(*map(rounded, (median(figures), min(figures), max(figures))))


@dataclass(frozen=True, slots=True)
class Contestant:
    """One of those that were measured.

    Attributes:
        name: short, for tables and plots.
        rounds: its figure in each round, in the result's unit.
        is_ours: whether it is paywatch.
        about: what it is, in a few words.
    """

    name: str
    rounds: tuple[float, ...]
    is_ours: bool = False
    about: str = ""

    def __post_init__(self) -> None:
        """Keep as many digits as the file does, so that ratios are the same before and after."""
        object.__setattr__(self, "rounds", tuple(map(rounded, self.rounds)))

    @property
    def spread(self) -> Spread:
        """Its median, least and largest figure."""
        return Spread.of(self.rounds)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A figure that has a meaning: one contestant divided by another, or alone.

    Attributes:
        of: the name of a contestant.
        to: that of the one by whose figure it is divided, round by round; None for none.
        goal: what it has to reach; None if it is only told.
        sense: on which side of the goal it has to be.
    """

    of: str
    to: str | None = None
    goal: float | None = None
    sense: Sense = Sense.AT_LEAST

    def holds(self, figure: float) -> bool:
        """Whether a figure reaches the goal."""
        if self.goal is None:
            return True
        return figure >= self.goal if self.sense is Sense.AT_LEAST else figure <= self.goal


@dataclass(frozen=True, slots=True)
class Result:
    """One run of a benchmark.

    Attributes:
        benchmark: its name.
        unit: of all contestants' figures, such as `operations a second`.
        contestants: in the order in which tables and plots show them.
        comparisons: the ratios and limits that matter.
        settings: what the run was told, by name.
        machine: `bench.machine.describe()`.
    """

    benchmark: str
    unit: str
    contestants: tuple[Contestant, ...]
    comparisons: tuple[Comparison, ...]
    settings: Mapping[str, int | float | str] = field(default_factory=dict)
    machine: Mapping[str, int | str] = field(default_factory=dict)

    def contestant(self, name: str) -> Contestant:
        """Give one by its name; raises KeyError if there is none."""
        return {contestant.name: contestant for contestant in self.contestants}[name]

    def compared(self, comparison: Comparison) -> Spread:
        """Work a comparison out: the figure of each round, and of these the median and the ends.

        Raises:
            ValueError: the two were not measured in the same rounds.
        """
        ours = self.contestant(comparison.of).rounds
        if comparison.to is None:
            return Spread.of(ours)
        theirs = self.contestant(comparison.to).rounds
        return Spread.of([one / other for one, other in zip(ours, theirs, strict=True)])

    def dump(self) -> str:
        """Write it as JSON; medians and ratios are written, too, for other readers."""
        document = asdict(self)
        document["contestants"] = [asdict(one) | asdict(one.spread) for one in self.contestants]
        document["comparisons"] = [
            asdict(one) | asdict(self.compared(one)) for one in self.comparisons
        ]
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def load(cls, text: str) -> Self:
        """Read what `dump` wrote."""
        document = json.loads(text)
        document["contestants"] = tuple(map(_contestant, document["contestants"]))
        document["comparisons"] = tuple(map(_comparison, document["comparisons"]))
        return cls(**document)


def rounded(figure: float) -> float:
    """Keep `DIGITS` significant digits."""
    kept = float(f"{figure:.{DIGITS}g}")
    return int(kept) if kept.is_integer() else kept


def _contestant(written: dict[str, Any]) -> Contestant:
    rounds = tuple(written["rounds"])
    return Contestant(written["name"], rounds, written["is_ours"], written["about"])


def _comparison(written: dict[str, Any]) -> Comparison:
    return Comparison(written["of"], written["to"], written["goal"], Sense(written["sense"]))

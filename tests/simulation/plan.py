"""What one seed comes to: who is there, what goes wrong and how often. Pure: the same seed, the
same plan.

A fault that happens all the time hides what only happens without it, so each kind is off in more
than half of the seeds, and some seeds have none at all.
"""

from dataclasses import dataclass, fields
from random import Random
from typing import Final, Literal

from paywatch.sim import Fault, Moment
from paywatch.sim.faults import WHERE

OFF: Final = 0.6  # the share of seeds in which one kind of fault never happens
CALM: Final = 0.08  # the share of seeds in which nothing goes wrong at all
LEDGER_S: Final = 5

WORDS: Final = ("announce", "apply", "return", "resend", "enable", "change_policy")

HorizonKind = Literal["well", "lagging", "short", "foreign"]


@dataclass(frozen=True, slots=True)
class MerchantPlan:
    """A merchant: its policy, and how it begins.

    Attributes:
        joins_s: registers so many seconds after the beginning.
        funded: whether its account is on the ledger by then.
    """

    name: str
    tolerance_bps: int
    late_grace_s: int | None
    text_for_id: bool
    told: bool  # has an endpoint
    joins_s: int
    funded: bool


@dataclass(frozen=True, slots=True)
class HorizonPlan:
    """One instance of Horizon: `amount` ledgers behind (lagging), or kept (short)."""

    kind: HorizonKind
    amount: int = 0


@dataclass(frozen=True, slots=True)
class DatabaseRates:
    """Shares of the round trips, or of the COMMITs, that meet a fault of the database."""

    lost_before: float = 0.0  # the connection is gone before the statement
    lost_after: float = 0.0  # the statement was done, its answer is lost
    lost_before_commit: float = 0.0
    lost_after_commit: float = 0.0
    serialization: float = 0.0  # 40001
    deadlock: float = 0.0  # 40P01


@dataclass(frozen=True, slots=True)
class AnswerRates:
    """Shares of the webhook requests that a merchant answers so."""

    error: float = 0.0  # 500
    slow_down: float = 0.0  # 429 with Retry-After
    hang: float = 0.0
    reset: float = 0.0  # processed, and the connection broken
    redirect: float = 0.0
    gone: float = 0.0  # 410
    slow: float = 0.0  # answered in time, but late
    huge: float = 0.0  # a body without end, nearly


@dataclass(frozen=True, slots=True)
class Troubles:
    """What befalls processes and the network, times a minute."""

    crash: float = 0.0  # an instance, as by SIGKILL, at a random moment
    crash_at_statement: float = 0.0  # the same in the middle of a round trip to the database
    stop: float = 0.0  # gracefully, as by SIGTERM
    freeze: float = 0.0  # as by SIGSTOP, for some seconds
    jump: float = 0.0  # an instance's clock, by minutes
    away: float = 0.0  # every Horizon, for a while
    change: float = 0.0  # an instance of Horizon lags more or less
    hide: float = 0.0  # a ledger is ingested behind everybody's cursor
    garble: float = 0.0  # a record that nobody can read


@dataclass(frozen=True, slots=True)
class Plan:
    """All of one run, but for what its actors draw on the way."""

    seed: int
    minutes: int  # of the first phase, virtual
    merchants: tuple[MerchantPlan, ...]
    instances: int
    listen_mode: Literal["account", "network"]
    horizons: tuple[HorizonPlan, ...]
    haste: float  # actions of customers and merchants between two ledgers
    words: tuple[str, ...]  # the kinds of things that merchants say
    recover_interval_s: int
    processing_s: int
    audit_interval_s: int
    horizon_faults: tuple[tuple[Fault, Moment, float], ...]
    database: DatabaseRates
    answers: AnswerRates
    troubles: Troubles

    @property
    def is_calm(self) -> bool:
        """Whether nothing goes wrong."""
        kinds = (self.database, self.answers, self.troubles)
        return not self.horizon_faults and not any(_rates(kind) for kind in kinds)

    @property
    def reads_in_order(self) -> bool:
        """Whether credits are read in the ledger's order, but for those announced or shown late.

        Not where the network is read as a whole: an account that joins is read up by itself.
        """
        hides_events = any(
            moment is Moment.EVENT and fault is Fault.MALFORMED
            for fault, moment, _ in self.horizon_faults
        )
        return self.listen_mode == "account" and not hides_events

    def describe(self) -> str:
        """Give one screen of text."""
        merchants = [
            f"  {m.name}: joins at {m.joins_s} s, {'funded' if m.funded else 'not funded'},"
            f" {'told' if m.told else 'not told'}, tolerance {m.tolerance_bps} bps,"
            f" grace {m.late_grace_s} s, text for id {m.text_for_id}"
            for m in self.merchants
        ]
        horizons = ", ".join(f"{h.kind} {h.amount or ''}".strip() for h in self.horizons)
        faults = [f"{fault} at {at} {rate:.3f}" for fault, at, rate in self.horizon_faults]
        how = f"{self.instances} instance(s) listening by {self.listen_mode}"
        seconds = f"recovery {self.recover_interval_s} s, processing {self.processing_s} s"
        return "\n".join(
            [
                f"seed {self.seed}: {self.minutes} min, {how}, {self.haste:.1f} actions a ledger",
                f"{seconds}, audit {self.audit_interval_s} s; Horizons: {horizons}",
                f"words: {', '.join(self.words) or 'none'}",
                *merchants,
                f"Horizon: {', '.join(faults) or 'no faults'}",
                f"database: {_told(self.database)}",
                f"merchants: {_told(self.answers)}",
                f"troubles a minute: {_told(self.troubles)}",
            ]
        )


def _rates(of: object) -> dict[str, float]:
    named = {field.name: getattr(of, field.name) for field in fields(of)}  # type: ignore[arg-type] # a dataclass
    return {name: rate for name, rate in named.items() if rate}


def _told(of: object) -> str:
    return ", ".join(f"{name} {rate:.3f}" for name, rate in _rates(of).items()) or "no faults"


class _Dice:
    """Draws the rates of one part of a plan."""

    def __init__(self, seed: int, part: str, *, calm: bool) -> None:
        self.random = Random(f"{seed}/plan/{part}")
        self._calm = calm

    def rate(self, most: float) -> float:
        """Give none mostly, and else anything up to `most`: rare as well as frequent."""
        off, share = self.random.random() < OFF, self.random.random()
        return 0.0 if off or self._calm else most * max(0.02, share**2)


def draw(seed: int) -> Plan:
    """Draw the plan of a seed."""
    rng = Random(f"{seed}/plan")
    calm = rng.random() < CALM
    mode: Literal["account", "network"] = rng.choice(("account", "account", "network"))
    return Plan(
        seed=seed,
        minutes=rng.choice((2, 3, 3, 4, 4, 5, 8)),
        merchants=tuple(_merchant(rng, number) for number in range(rng.choice((1, 1, 2, 3)))),
        instances=rng.choice((1, 1, 2)),
        listen_mode=mode,
        horizons=_horizons(rng, calm=calm),
        haste=rng.uniform(0.5, 4.0),
        words=tuple(kind for kind in WORDS if rng.random() < 0.45),
        recover_interval_s=rng.choice((10, 30, 60)),
        processing_s=rng.choice((10, 60, 300)),
        audit_interval_s=rng.choice((60, 60, 120)),
        horizon_faults=_horizon_faults(_Dice(seed, "horizon", calm=calm)),
        database=_database(_Dice(seed, "database", calm=calm)),
        answers=_answers(_Dice(seed, "answers", calm=calm)),
        troubles=_troubles(_Dice(seed, "troubles", calm=calm)),
    )


def _merchant(rng: Random, number: int) -> MerchantPlan:
    joins_s = 0 if number == 0 else rng.choice((0, 0, rng.randint(10, 200)))
    return MerchantPlan(
        name=f"shop {number + 1}",
        tolerance_bps=rng.choice((0, 0, 100, 1000)),
        late_grace_s=rng.choice((None, None, 10, 60)),
        text_for_id=rng.random() < 0.8,
        told=rng.random() < 0.9,
        joins_s=joins_s,
        funded=rng.random() < 0.85,
    )


def _horizons(rng: Random, *, calm: bool) -> tuple[HorizonPlan, ...]:
    """The first is well, or lags a little; the others may be anything."""
    others = [
        HorizonPlan("well"),
        HorizonPlan("lagging", rng.randint(1, 40)),
        HorizonPlan("short", rng.randint(1, 30)),
        HorizonPlan("foreign"),
    ]
    count = 0 if calm else rng.choice((0, 0, 1, 2))
    found = [HorizonPlan("well"), *(rng.choice(others) for _ in range(count))]
    rng.shuffle(found)
    return tuple(found)


def _horizon_faults(dice: _Dice) -> tuple[tuple[Fault, Moment, float], ...]:
    """Each kind on its own, at its own moment: a stream may fail where pages do not."""
    most = {Moment.PAGE: 0.15, Moment.STREAM: 0.3, Moment.EVENT: 0.2}
    drawn = [
        (fault, moment, dice.rate(most[moment] / (3 if fault is Fault.HANG else 1)))
        for fault in Fault
        for moment in sorted(WHERE[fault])
    ]
    return tuple((fault, moment, rate) for fault, moment, rate in drawn if rate)


def _database(dice: _Dice) -> DatabaseRates:
    return DatabaseRates(
        lost_before=dice.rate(0.02),
        lost_after=dice.rate(0.02),
        lost_before_commit=dice.rate(0.05),
        lost_after_commit=dice.rate(0.1),
        serialization=dice.rate(0.1),
        deadlock=dice.rate(0.02),
    )


def _answers(dice: _Dice) -> AnswerRates:
    return AnswerRates(
        error=dice.rate(0.5),
        slow_down=dice.rate(0.3),
        hang=dice.rate(0.2),
        reset=dice.rate(0.4),
        redirect=dice.rate(0.2),
        gone=dice.rate(0.004),  # for good: what comes later is told to nobody
        slow=dice.rate(0.3),
        huge=dice.rate(0.2),
    )


def _troubles(dice: _Dice) -> Troubles:
    return Troubles(
        crash=dice.rate(2.0),
        crash_at_statement=dice.rate(3.0),
        stop=dice.rate(1.0),
        freeze=dice.rate(1.0),
        jump=dice.rate(1.0),
        away=dice.rate(0.5),
        change=dice.rate(2.0),
        hide=dice.rate(0.5),
        garble=dice.rate(1.0),
    )

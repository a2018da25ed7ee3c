"""What a soak came to: the figures, and what of it is wrong."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from support.soak_samples import Sample, growth, median, part, rows_of
from support.soaking import Plan, Soak

# In the last half, by the straight line that fits best. What is lost for good with each payment
# shows here: at five a second, half a KiB of each is more than 4 MiB in half an hour.
MOST_GROWTH: Final = {"rss_mib": 4.0, "open_fds": 8.0, "threads": 4.0, "connections": 4.0}
MOST_LAG_GROWTH_S: Final = 2.0  # of traffic, from the second quarter's median to the last one's
MOST_CONNECTIONS: Final = 12  # the pool's ten, and one for each lock
NOTHING_LEFT: Final = ("unsettled", "outbox", "overdue_leases", "dead_letters", "violations")


@dataclass(frozen=True, slots=True)
class Report:
    """One run in figures."""

    seed: int
    plan: Plan
    figures: Mapping[str, float | int]
    wrong: list[str]
    document: dict[str, Any]

    @classmethod
    def of(cls, soak: Soak, seed: int) -> "Report":
        """Judge a run that is over."""
        assert soak.at_rest is not None
        samples = soak.samples
        figures = _figures(soak, soak.at_rest)
        wrong = [*soak.wrong, *_grown(soak, samples), *_left(soak.at_rest)]
        if any(sample.violations for sample in samples):
            wrong.append("an invariant was violated")
        document = {
            "seed": seed,
            "minutes": soak.plan.minutes,
            "rate": soak.plan.rate,
            "fault_rate": soak.plan.fault_rate,
            "figures": dict(figures),
            "wrong": wrong,
            "faults_of_horizon": {str(k): n for k, n in soak.site.network.faults.struck.items()},
            "log": dict(soak.logged.most_common()),
            "tables": soak.tables,
            "samples": rows_of([*samples, soak.at_rest]),
        }
        return cls(seed, soak.plan, figures, wrong, document)


def _figures(soak: Soak, at_rest: Sample) -> dict[str, float | int]:
    samples = soak.samples
    half, second, last = (part(samples, *ends) for ends in ((0.5, 1), (0.25, 0.5), (0.75, 1)))
    due = soak.traffic.due().values()
    return {
        "sessions": len(due),
        "sessions paid": sum(must.status == "paid" for must in due),
        "sessions expired": sum(must.status == "expired" for must in due),
        "payments": len(soak.traffic.sent),
        "events": len(soak.merchant.got),
        "webhooks received": soak.merchant.received_total,
        "of these answered with 200": soak.merchant.got.total(),
        **soak.blows,
        "connections of the trial's own that were lost": soak.traffic.lost + soak.asking.lost,
        "MiB of memory, first": samples[0].rss_mib,
        "MiB of memory, at half time": half[0].rss_mib,
        "MiB of memory, last": samples[-1].rss_mib,
        "MiB of memory, at most": max(sample.rss_mib for sample in samples),
        "MiB grown in the last half": growth(half, "rss_mib"),
        "open files, at most": max(sample.open_fds for sample in samples),
        "open files grown in the last half": growth(half, "open_fds"),
        "connections to the database, at most": max(sample.connections for sample in samples),
        "unsettled payments, median of the second quarter": median(second, "unsettled"),
        "unsettled payments, median of the last quarter": median(last, "unsettled"),
        "unsettled payments, at most": max(sample.unsettled for sample in samples),
        "deliveries waiting, median of the second quarter": median(second, "outbox"),
        "deliveries waiting, median of the last quarter": median(last, "outbox"),
        "invariants violated, at most": max(sample.violations for sample in samples),
        "share of one processor": (samples[-1].cpu_s - samples[0].cpu_s)
        / (samples[-1].at_s - samples[0].at_s),
        "MiB of database": at_rest.database_mib,
        "seconds to come to rest": soak.rest_s,
        "left over": sum(getattr(at_rest, name) for name in NOTHING_LEFT),
    }


def _grown(soak: Soak, samples: list[Sample]) -> list[str]:
    """What rose through the last half and must not, and lag that did."""
    half = part(samples, 0.5, 1)
    wrong = [
        f"{name} grew by {grown:.1f} in the last half, more than {most:g}"
        for name, most in MOST_GROWTH.items()
        if (grown := growth(half, name)) > most
    ]
    second, last = part(samples, 0.25, 0.5), part(samples, 0.75, 1)
    most = MOST_LAG_GROWTH_S * soak.plan.rate
    for name in ("unsettled", "outbox"):
        grown = median(last, name) - median(second, name)
        if grown > most:
            wrong.append(f"{name} is {grown:g} higher in the last quarter than in the second")
    busiest = max(sample.connections for sample in samples)
    if busiest > MOST_CONNECTIONS:
        wrong.append(f"{busiest} connections to the database")
    return wrong


def _left(at_rest: Sample) -> list[str]:
    return [
        f"{name} is {value:g} at rest" for name in NOTHING_LEFT if (value := getattr(at_rest, name))
    ]

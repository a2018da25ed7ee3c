"""A daemon looked at every few seconds: by the kernel, by its own metrics, by its database."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from support.asking import Asking

_STAND = """
SELECT (SELECT count(*) FROM credits),
       (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'paywatch'
           AND datname = current_database()),
       (SELECT count(*) FROM deliveries WHERE lease_until < now()),
       pg_database_size(current_database())"""

_SIZES = """
SELECT relname, n_live_tup, pg_total_relation_size(relid)
  FROM pg_stat_user_tables ORDER BY relname"""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look.

    Attributes:
        at_s: since the beginning.
        rss_mib, threads, open_fds, cpu_s: of the process.
        lag_ledgers, outbox, outbox_oldest_s, violations, dead_letters: as the daemon says.
        unsettled: operations that the ledger has and the database has not.
        connections: of the daemon to its database.
        overdue_leases: that have run out and still stand.
        database_mib: all tables and indexes.
    """

    at_s: float
    rss_mib: float
    threads: int
    open_fds: int
    cpu_s: float
    lag_ledgers: float
    outbox: float
    outbox_oldest_s: float
    violations: float
    dead_letters: float
    unsettled: int
    connections: int
    overdue_leases: int
    database_mib: float


COLUMNS = [field.name for field in fields(Sample)]


@dataclass(frozen=True, slots=True)
class Sampler:
    """Looks at one daemon.

    Attributes:
        pid: of the daemon.
        url: where it serves its metrics.
        asking: its database.
    """

    pid: int
    url: str
    http: aiohttp.ClientSession
    asking: Asking

    async def look(self, at_s: float, operations: int) -> Sample:
        """Look once; `operations` are those that the ledger has for the shop.

        Raises:
            FileNotFoundError: the daemon has ended.
        """
        says = await self._metrics()
        credits_, connections, overdue, size = await self.asking.row(_STAND)
        process = Path(f"/proc/{self.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        return Sample(
            at_s=round(at_s, 1),
            rss_mib=round(int(status["VmRSS"].split()[0]) / 1024, 2),
            threads=int(status["Threads"]),
            open_fds=len(list((process / "fd").iterdir())),
            cpu_s=says["process_cpu_seconds_total"],
            lag_ledgers=says["paywatch_lag_ledgers"],
            outbox=says["paywatch_outbox_deliveries"],
            outbox_oldest_s=round(says["paywatch_outbox_oldest_seconds"], 1),
            violations=says["paywatch_invariant_violations"],
            dead_letters=says["paywatch_dead_letters"],
            unsettled=operations - credits_,
            connections=connections,
            overdue_leases=overdue,
            database_mib=round(size / 2**20, 1),
        )

    async def _metrics(self) -> dict[str, float]:
        """The daemon's own figures; of those with labels, the highest."""
        async with self.http.get(f"{self.url}/metrics") as response:
            text = await response.text()
        says: dict[str, float] = dict.fromkeys(["paywatch_lag_ledgers"], 0.0)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                says[sample.name] = max(says.get(sample.name, sample.value), sample.value)
        return says

    async def tables(self) -> dict[str, dict[str, int]]:
        """The rows, about, and the bytes of each table, with its indexes."""
        rows = await self.asking.rows(_SIZES)
        return {name: {"rows": count, "bytes": size} for name, count, size in rows}


def part(samples: Sequence[Sample], begin: float, end: float) -> Sequence[Sample]:
    """The samples of a part of the time, such as the last half: from 0.5 to 1."""
    first, last = samples[0].at_s, samples[-1].at_s
    low, high = (first + share * (last - first) for share in (begin, end))
    return [sample for sample in samples if low <= sample.at_s <= high]


def growth(samples: Sequence[Sample], name: str) -> float:
    """By how much the straight line that fits a column best rises from first to last."""
    moments = [sample.at_s for sample in samples]
    values = [float(getattr(sample, name)) for sample in samples]
    slope = statistics.linear_regression(moments, values).slope
    return slope * (moments[-1] - moments[0])


def median(samples: Sequence[Sample], name: str) -> float:
    """The median of a column."""
    return statistics.median(float(getattr(sample, name)) for sample in samples)


def rows_of(samples: Sequence[Sample]) -> list[dict[str, float]]:
    """The samples as plain rows."""
    return [asdict(sample) for sample in samples]

"""All benchmarks, in the order in which the page shows them."""

from collections.abc import Sequence
from typing import Final

from bench import care, deliveries, filtering, large_tables, latency, memory, settling
from bench.benchmark import Benchmark

BENCHMARKS: Final[Sequence[Benchmark]] = (
    settling.BENCHMARK,
    latency.BENCHMARK,
    deliveries.BENCHMARK,
    filtering.BENCHMARK,
    large_tables.BENCHMARK,
    care.BENCHMARK,
    memory.BENCHMARK,
)

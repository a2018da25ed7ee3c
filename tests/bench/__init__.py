"""Benchmarks: paywatch beside what somebody would use instead, in one run on one machine.

How to add one, `bench/NAME.py`:

* Run the contestants in rounds by turns (`bench.rounds.by_turns`), so that what else the machine
  does falls upon all of them, and refuse the figures of a run that did not do its work.
* Give a `bench.result.Result`: each contestant's figure of each round, and the comparisons that
  matter, with their goals. Ratios are worked out here, round by round.
* Say what it is in a `bench.benchmark.Benchmark` called `BENCHMARK`, and enter that in
  `bench.catalog.BENCHMARKS`.

Then `make bench BENCH=NAME BENCH_ARGS='…'` measures and prints it; with `--save` among the
arguments it also writes `docs/figures/NAME.json`, and from that, by `bench.page` and `bench.plot`,
`docs/performance.md` and `docs/figures/NAME.svg`. `make docs` renders them again without measuring.
"""

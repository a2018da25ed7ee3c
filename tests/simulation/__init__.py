"""A deterministic simulation: the real daemon and a real PostgreSQL, everything else on a seed.

See docs/simulation.md. The kernel is `loop` (time), `wire` (the network), `postgres` (the
database, one statement at a time) and `instance` (one daemon); the rest is what happens to it.
"""

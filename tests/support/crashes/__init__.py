"""Daemons that end, or freeze, at a named point of what they do, and what is looked at behind it.

`probe` and `nursery` run in other processes: the one names the points, the other makes processes
that are watched by it. `children` speaks to the nursery, `town` is the world around the daemon,
and `trial` has them end at every point, one after the other.
"""

"""Everything that knows Horizon: its records, its stream, its errors and its traps.

Nothing outside this package may depend on Horizon, so that a second source can stand beside it.
"""

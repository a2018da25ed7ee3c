"""The verbs. Each loop is a thin wrapper around a `run_once` that tests call too.

Services reach Horizon and the merchants' servers only through protocols declared here; `wiring`
joins them.
"""

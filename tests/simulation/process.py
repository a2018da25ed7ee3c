"""Whose doing something is: each simulated process has a context of its own."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(eq=False)
class Process:
    """One simulated process.

    Attributes:
        name: in the trace.
        is_dead: nothing that it still does has any effect.
        frozen_until: virtual seconds until which it neither sends nor takes in anything.
        on_crash: what has to happen when it is killed.
    """

    name: str
    is_dead: bool = False
    frozen_until: float = 0.0
    on_crash: Callable[[], None] = field(default=lambda: None, repr=False)


current: ContextVar[Process | None] = ContextVar("current", default=None)
"""The process whose code runs; None is the world around all of them."""

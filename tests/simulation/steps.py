"""The round trips between a process and PostgreSQL, and what can happen to one."""

import re
from dataclasses import dataclass
from enum import StrEnum
from types import GeneratorType
from typing import Any, Final, TypeAlias

from simulation.process import Process

_WRITES: Final = re.compile(r"\b(INSERT\s+INTO|DELETE\s+FROM|UPDATE\s+(?!SKIP|NOWAIT|OF\b)\w+\s)")
Gen: TypeAlias = "GeneratorType[Any, Any, Any]"  # not to be had at run time


class Kind(StrEnum):
    """What a round trip is."""

    CONNECT = "connect"
    STATEMENT = "statement"
    COMMIT = "commit"
    ROLLBACK = "rollback"


class Trouble(StrEnum):
    """What can happen to a round trip."""

    LOST_BEFORE = "lost_before"
    """The connection breaks before the server has seen it."""
    LOST_AFTER = "lost_after"
    """It breaks after the server has done it: at COMMIT nobody knows."""
    SERIALIZATION = "serialization"
    """40001; also at COMMIT."""
    DEADLOCK = "deadlock"
    """40P01."""
    CRASH_BEFORE = "crash_before"
    """The process is killed before the server has seen it."""
    CRASH_AFTER = "crash_after"


@dataclass(frozen=True, slots=True)
class Step:
    """One round trip of a process.

    Attributes:
        sql: its text on one line; empty but for a statement.
        wrote: whether its transaction has written anything, up to and with it.
        is_in_transaction: whether one was open before it.
    """

    process: Process
    kind: Kind
    sql: str
    wrote: bool
    is_in_transaction: bool = False


def describe(gen: Gen) -> tuple[Kind, str]:
    """Tell what psycopg is about to do by the generator that it hands over."""
    name = gen.__name__
    if name == "_commit_gen":
        return Kind.COMMIT, ""
    if name == "_rollback_gen":
        return Kind.ROLLBACK, ""
    query = gen.gi_frame.f_locals.get("query", name) if gen.gi_frame is not None else name
    text = query.decode() if isinstance(query, bytes) else str(query)
    return Kind.STATEMENT, " ".join(text.split())


def is_local(gen: Gen, *, is_in_transaction: bool) -> bool:
    """Whether psycopg will not ask the server."""
    name = gen.__name__
    ends = name in {"_commit_gen", "_rollback_gen"}
    return name.startswith("_set_") or (ends and not is_in_transaction)


def may_write(sql: str) -> bool:
    """Whether a statement can change anything."""
    return bool(_WRITES.search(sql))

"""Changes to bytes and to JSON, drawn from a random number generator."""

import json
from collections.abc import Callable
from random import Random
from typing import Any, Final

_ODD: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 2**63, 2**64, 1e308, "", "0", "-1", "\0", "\ud800", "\uff11",
    "9" * 39, "9" * 40, "0.0000001", "922337203685.4775808", [], {}, [[]], "native", "return",
    "2026-02-30T00:00:00Z", "9999-12-31T23:59:59-23:59", "aa" * 32, "AAAA", "G" + "A" * 55,
)  # fmt: skip


def mutate_json(raw: bytes, rng: Random) -> bytes:
    """Change one place of a JSON document; what is none comes back as it was."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return raw
    places: list[tuple[Any, Any]] = []
    pending: list[Any] = [document] if isinstance(document, dict | list) else []
    while pending:
        holder = pending.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        places += [(holder, key) for key in keys]
        pending += [holder[key] for key in keys if isinstance(holder[key], dict | list)]
        if len(places) > 5000:
            break
    if places:
        holder, key = rng.choice(places)
        other, name = rng.choice(places)
        rng.choice(_CHANGES)(holder, key, other[name], rng)
    try:
        return json.dumps(document, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        return raw


def _replace(holder: Any, key: Any, _: Any, rng: Random) -> None:
    holder[key] = rng.choice(_ODD)


def _copy(holder: Any, key: Any, other: Any, _: Random) -> None:
    holder[key] = json.loads(json.dumps(other))


def _remove(holder: Any, key: Any, _: Any, __: Random) -> None:
    del holder[key]


def _edit(holder: Any, key: Any, _: Any, rng: Random) -> None:
    value = holder[key]
    if isinstance(value, str):
        at = rng.randint(0, len(value))
        holder[key] = value[:at] + rng.choice("0aA.=-\0 \ud800") + value[at + rng.randint(0, 1) :]
    elif isinstance(value, int):
        holder[key] = value + rng.choice([-1, 1, 2**32])


def _repeat(holder: Any, key: Any, _: Any, __: Random) -> None:
    if isinstance(holder, list) and len(holder) < 300:
        holder.append(holder[key])


_CHANGES: Final[tuple[Callable[[Any, Any, Any, Random], None], ...]] = (
    _replace, _copy, _remove, _edit, _edit, _repeat,
)  # fmt: skip


def mutate_bytes(raw: bytes, rng: Random) -> bytes:
    """Change, drop, double or add some bytes."""
    at, length = rng.randint(0, len(raw)), rng.choice([1, 1, 1, 2, 8, 64])
    part = raw[at : at + length]
    new = rng.choice([b"", part + part, rng.randbytes(length), b"\r\n", b"\xff" * length, b"0"])
    return raw[:at] + new + raw[at + len(part) :]

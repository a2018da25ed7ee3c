"""What is fuzzed: a name, a function that takes any bytes, and bytes to begin with."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FUZZ: Final = Path(__file__).parent
CORPUS: Final = FUZZ / "corpus"
GOLDEN: Final = FUZZ.parent / "unit" / "horizon" / "golden"

NAMES: Final = (
    "records",
    "pages",
    "documents",
    "strict_json",
    "sse",
    "fields",
    "xdr",
    "envelopes",
    "headers",
    "settings",
    "urls",
    "answers",
    "horizon_http",
)

# What a target reads by, beside paywatch's own code: its branches guide the fuzzer, too.
GUIDED_TOO: Final = {"xdr": ("stellar_sdk.xdr",), "envelopes": ("stellar_sdk.xdr",)}


@dataclass(frozen=True, slots=True)
class Target:
    """One parser of what strangers send.

    Attributes:
        run: reads the bytes and checks what came of it; what it raises is a finding.
        seeds: bytes of the real world to begin with.
        is_json: whether to change values inside the JSON, beside the bytes.
        is_slow: whether one run takes milliseconds, not microseconds.
    """

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    is_json: bool = False
    is_slow: bool = False


def dumped(document: Any) -> bytes:
    """Write JSON as Horizon does."""
    return json.dumps(document, separators=(",", ":")).encode()


def real_records(pattern: str = "[0-9]*.json") -> Iterator[dict[str, Any]]:
    """The real records of the golden pairs."""
    for path in sorted(GOLDEN.glob(pattern)):
        record: dict[str, Any] = json.loads(path.read_text())["record"]
        yield record


def kept(name: str) -> list[Path]:
    """The inputs that were trouble once, kept for ever."""
    return sorted((CORPUS / name).glob("*"))

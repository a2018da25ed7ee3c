"""Write `states.md` from the table of transitions: `make docs`."""

from collections.abc import Iterable
from pathlib import Path

from paywatch.domain.checkout import OPEN, TRANSITIONS, SessionStatus

PAGE = """# The states of a checkout session

Generated from `paywatch.domain.checkout.TRANSITIONS` by `make docs`; a test compares them.

```mermaid
stateDiagram-v2
    [*] --> pending
{arrows}
```

| from | cause | to |
|---|---|---|
{rows}

A session in {open} still waits for money, and expires when its account's stream has been read past
its deadline, by the ledger's clock. A credit that closed in time but is found after that still
counts: that is the way out of `expired`. Nothing leaves {final}.
"""


def render() -> str:
    """Give the page as the table of transitions has it."""
    moves = [
        (before, cause, after)
        for before, causes in TRANSITIONS.items()
        for cause, after in causes.items()
    ]
    final = [status for status in SessionStatus if not TRANSITIONS[status]]
    return PAGE.format(
        arrows="\n".join(f"    {before} --> {after}: {cause}" for before, cause, after in moves),
        rows="\n".join(f"| `{before}` | {cause} | `{after}` |" for before, cause, after in moves),
        open=_list(status for status in SessionStatus if status in OPEN),
        final=_list(final),
    )


def _list(statuses: Iterable[SessionStatus]) -> str:
    names = [f"`{status}`" for status in statuses]
    return ", ".join(names[:-1]) + f" or {names[-1]}"


if __name__ == "__main__":
    Path(__file__).with_name("states.md").write_text(render(), encoding="utf-8")

"""What is well and what is not, and what to do about it.

Two questions, for two askers. *Live*: does the daemon get somewhere? If not, restart it.
*Ready*: can it do its work now? If not, restarting it does not help: the finding says what does.
`upstream` (Horizon is behind the network) and `listen` (we are behind Horizon) are apart, since
the first is nothing that an operator of paywatch can mend.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

# A ledger closes every 4 to 6 s, and Horizon looks for a new one every 5 s.
BEHIND_AFTER = timedelta(seconds=60)
CHECK_TIMEOUT_S = 2.0

_NEEDS_SOMEBODY: Final = {
    "stalled": "stand still while Horizon goes on; they are begun anew by themselves, and if that"
    " does not help, the process: see `stream_rebuilt` in the log",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """How one part of the daemon is.

    Attributes:
        ready: whether it can do its work.
        state: one word: `ok`, `unreachable`, `behind`, `pending`, …
        message: a sentence for people; if not ready, with what to do. Never a secret.
    """

    ready: bool
    state: str
    message: str


Check = Callable[[], Awaitable[Finding]]


class HealthSource(Protocol):
    """What health is told by the wiring."""

    def stalled(self) -> Sequence[str]:
        """The names of the loops that make no progress."""
        ...

    def checks(self) -> Mapping[str, Check]:
        """One for each part that this daemon's roles need, such as `database` or `upstream`."""
        ...


async def examine(checks: Mapping[str, Check], timeout_s: float) -> dict[str, Finding]:
    """All findings, by part, each check at the same time and with the same time limit."""
    results = await asyncio.gather(
        *(asyncio.wait_for(check(), timeout_s) for check in checks.values()),
        return_exceptions=True,
    )
    return {
        part: result if isinstance(result, Finding) else _failed(part, result, timeout_s)
        for part, result in zip(checks, results, strict=True)
    }


def _failed(part: str, error: BaseException, timeout_s: float) -> Finding:
    if isinstance(error, TimeoutError):
        return Finding(
            ready=False,
            state="timeout",
            message=f"no answer about {part} within {timeout_s:g} s; "
            "look for a blocked database or network",
        )
    # The error's own text may name hosts and users: it belongs in the log.
    return Finding(
        ready=False,
        state="failed",
        message=f"the check failed with {type(error).__name__}; run `paywatch doctor`",
    )


def judge_upstream(tip_closed_at: datetime | None, now: datetime) -> Finding:
    """Horizon against the clock.

    Args:
        tip_closed_at: when Horizon's latest ledger closed; None if Horizon does not answer.
        now: our clock.
    """
    if tip_closed_at is None:
        return Finding(
            ready=False,
            state="unreachable",
            message="Horizon does not answer; check PAYWATCH_HORIZON_URL and the network. "
            "Nothing is lost and nothing expires: reading goes on where it stopped",
        )
    lag = now - tip_closed_at
    if lag > BEHIND_AFTER:
        return Finding(
            ready=False,
            state="behind",
            message=f"Horizon's latest ledger is {_seconds(lag)} old: it lags behind the network, "
            "or our clock is wrong; check both, or set another PAYWATCH_HORIZON_URL",
        )
    return Finding(
        ready=True, state="ok", message=f"Horizon's latest ledger is {_seconds(lag)} old"
    )


def judge_listen(
    lags: Mapping[str, timedelta | None],
    states: Mapping[str, str] | None = None,
    stopped: Mapping[str, str] | None = None,
) -> Finding:
    """Our streams against Horizon's latest ledger.

    Args:
        lags: by stream, how much later Horizon's latest ledger closed than the one that is
            read and committed; None if nothing is known yet.
        states: by stream of this process, the state as `paywatch_stream_state` has it.
        stopped: those of them that may not go on without an operator's word, and why.
    """
    states, stopped = states or {}, stopped or {}
    if stopped:
        first = min(stopped)
        return Finding(
            ready=False,
            state="stopped",
            message=f"{len(stopped)} of {len(states)} streams may not go on without losing money,"
            f" and need an operator's word; {first}: {stopped[first]}",
        )
    for state, remedy in _NEEDS_SOMEBODY.items():
        if found := sorted(stream for stream in states if states[stream] == state):
            message = f"{len(found)} of {len(states)} streams {remedy}; the first is {found[0]}"
            return Finding(ready=False, state=state, message=message)
    if states and all(state == "standby" for state in states.values()):
        message = f"{len(states)} streams are led by another process; this one stands by"
        return Finding(ready=True, state="standby", message=message)
    lags = {stream: lag for stream, lag in lags.items() if states.get(stream) != "standby"}
    unknown = sorted(stream for stream, lag in lags.items() if lag is None)
    behind = {stream: lag for stream, lag in lags.items() if lag and lag > BEHIND_AFTER}
    if behind:
        worst = max(behind, key=lambda stream: behind[stream])
        return Finding(
            ready=False,
            state="behind",
            message=f"{len(behind)} of {len(lags)} streams are behind Horizon, {worst} by "
            f"{_seconds(behind[worst])}; wait while the lag falls, else look for slow "
            "settlement or the rate limit of Horizon (429)",
        )
    if unknown:
        return Finding(
            ready=False,
            state="starting",
            message=f"{len(unknown)} of {len(lags)} streams have not read anything yet, "
            f"{unknown[0]} among them; wait, or look for reconnects in the log",
        )
    message = f"{len(lags)} streams are up to date"
    if unfunded := sorted(stream for stream in states if states[stream] == "unfunded"):
        message += f"; of {len(unfunded)} the account is not on the ledger and waits to be funded"
        message += f", {unfunded[0]} among them"
    return Finding(ready=True, state="ok", message=message)


def _seconds(lag: timedelta) -> str:
    return f"{lag.total_seconds():.0f} s"

"""Makes processes of paywatch that are watched by a probe: `python -m support.crashes.nursery`.

It imports paywatch once and forks, so that a process starts in a tenth of the time; each is one of
its own from then on. Orders come on stdin and reports go to stdout, one JSON object a line; at the
end of stdin whatever still runs is killed.
"""

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from paywatch.cli import main as paywatch
from support.crashes.probe import Plan, Probe

_READ_ONLY = os.O_RDONLY
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


class Nursery:
    """The processes, by their ids."""

    def __init__(self) -> None:
        self._alive: set[int] = set()

    def run(self) -> None:
        """Take orders until there are no more."""
        signal.signal(signal.SIGCHLD, lambda *_: self._reap())
        for line in sys.stdin:
            order = json.loads(line)
            # Its end may not be told before its beginning.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
            pid = os.fork()
            if pid == 0:
                _be_paywatch(**order)
            self._alive.add(pid)
            _report({"pid": pid, "started": order["number"]})
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        for pid in self._alive:
            os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        while self._alive:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            if pid == 0:
                return
            if os.WIFSTOPPED(status):
                _report({"pid": pid, "stopped": True})
                continue
            self._alive.discard(pid)
            _report({"pid": pid, "ended": os.waitstatus_to_exitcode(status)})


def _be_paywatch(
    args: Sequence[str], environ: Mapping[str, str], plan: Mapping[str, Any], log: str, **_: object
) -> NoReturn:
    """Be `paywatch …` from now on, in a process that has just been forked."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    reports = os.dup(1)
    os.dup2(os.open(os.devnull, _READ_ONLY), 0)
    said = os.open(log, _APPEND, 0o600)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = ["paywatch", *args]
    pid = os.getpid()
    Probe(Plan(**plan), lambda fact: _report({"pid": pid, **fact}, reports)).install()
    code = 1
    try:
        paywatch()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _report(fact: Mapping[str, object], to: int = 1) -> None:
    """Write one line; short enough that lines of several processes do not mix."""
    os.write(to, json.dumps(fact).encode() + b"\n")


if __name__ == "__main__":
    Nursery().run()

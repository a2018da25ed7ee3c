"""django-polaris 2.6.0's `watch_transactions` on the same ledger, in the same PostgreSQL."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import rival
from bench.ledger import Recorded
from bench.prepared import Prepared
from support.databases import Cluster

SCRIPT: Final = Path(__file__).with_name("polaris_watch.py")


@dataclass(frozen=True)
class Polaris:
    """A polaris with one withdrawal that waits for each payment of the ledger.

    Attributes:
        count: transactions after which the clock is stopped.
        best: in its best legal setting; else as shipped. See `polaris_watch`.
    """

    prepared: Prepared
    ledger: Recorded
    horizon_url: str
    count: int
    best: bool

    def rate(self) -> float:
        """Transactions marked a second, on a fresh copy; its start is not counted."""
        told = [self.ledger.passphrase, str(self.count), *([self.ledger.account] * self.best)]
        with self.prepared.copy() as url:
            marked = _run("watch", url, self.horizon_url, *told)
        return (self.count - 1) / float(marked)


def open_polaris(
    cluster: Cluster, ledger: Recorded, horizon_url: str, count: int, *, best: bool
) -> Polaris:
    """Make its environment, unless that is there, and the database that is copied."""
    name = "polaris_best" if best else "polaris"
    told = [ledger.seed, ledger.asset, str(len(ledger.transactions)), *(["BEST"] * best)]
    _run("prepare", cluster.copy("template0", name), *told)
    return Polaris(Prepared(cluster, name), ledger, horizon_url, count, best)


def _run(*arguments: str) -> str:
    # Isolated: this directory has modules of the names of its packages.
    command = [str(rival.python_of("polaris")), "-I", str(SCRIPT), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603 - our own command

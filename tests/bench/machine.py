"""The machine and the versions that figures were measured on."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from support.documents import ROOT


def describe(database_url: str | None = None) -> dict[str, int | str]:
    """Describe this machine, and the PostgreSQL server if one took part."""
    found: dict[str, int | str] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
    }
    if database_url is not None:
        with psycopg.connect(database_url) as conn:
            row = conn.execute("SHOW server_version").fetchone()
            assert row is not None
            found["postgresql"] = str(row[0]).partition(" ")[0]
    return found | {"commit": _commit(), "measured_on": datetime.now(UTC).date().isoformat()}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    """The commit, with a plus if the source differs from it."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        run = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)  # noqa: S603 - constants
        return run.stdout.strip()

    changed = git("status", "--porcelain", "--", "src", "tests", "migrations", "requirements")
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + ("+" if changed else "")

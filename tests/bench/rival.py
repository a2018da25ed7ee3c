"""A rival in an environment of its own: what it needs must not mix with what we need."""

import subprocess
import sys
from pathlib import Path

from support.documents import ROOT


def python_of(name: str) -> Path:
    """Give the Python of a rival's environment; made from `requirements/NAME.txt` if need be.

    Each package is checked by its hash. What was broken off is begun again, and so is what has
    other requirements by now.
    """
    wanted = ROOT / "requirements" / f"{name}.txt"
    home = ROOT / ".bench" / name
    python, stamp = home / "bin" / "python", home / ".installed"
    if not stamp.exists() or stamp.read_text() != wanted.read_text():
        _run(sys.executable, "-m", "venv", "--clear", str(home))
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run(*pip, "--require-hashes", "-r", str(wanted))
        stamp.write_text(wanted.read_text())
    return python


def _run(*command: str) -> None:
    subprocess.run(command, check=True)  # noqa: S603 - our own commands

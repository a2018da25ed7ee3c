"""One small wrong change, as data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = "src/paywatch"
SIMULATION: Final = "simulation"


@dataclass(frozen=True, slots=True)
class Bug:
    """A text of one file, and the wrong one in its place.

    Attributes:
        file: below `src/paywatch`.
        old: occurs there exactly once.
        story: what somebody thought, or what comes of it.
        caught_by: the simulation, or a test's node below `tests/`: for what only real processes
            and real concurrency show, or no seed brings about.
    """

    name: str
    file: str
    old: str
    new: str
    story: str
    caught_by: str = SIMULATION

    def text(self, root: Path = ROOT) -> str:
        """Read the file as it is."""
        return (root / PACKAGE / self.file).read_text()

    def plant(self, root: Path) -> None:
        """Change a copy of the repository's `src`.

        Raises:
            ValueError: the text that is to be replaced is not there once.
        """
        text = self.text(root)
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: {self.file} has its text {text.count(self.old)} times")
        (root / PACKAGE / self.file).write_text(text.replace(self.old, self.new))

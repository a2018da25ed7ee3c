"""What every benchmark says of itself, so that it can be run, saved and shown."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass

from bench.result import Result


def _none(_: ArgumentParser) -> None:
    """Add no arguments."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: of the command, of its JSON file and of its plot.
        title: its heading in the documents.
        about: Markdown for people who have not read the code, wrapped at 100 columns: what is
            measured, beside what, and what the figure leaves out. No headings.
        measure: runs it with the options that `add_arguments` and `--rounds` gave.
        add_arguments: adds its options; each has a default.
        rounds: how many rounds, unless told otherwise.
        is_quick: whether it takes less than five minutes as it is: then `make bench` runs it.
    """

    name: str
    title: str
    about: str
    measure: Callable[[Namespace], Result]
    add_arguments: Callable[[ArgumentParser], None] = _none
    rounds: int = 5
    is_quick: bool = True

    def parse(self, arguments: list[str]) -> Namespace:
        """Read the command's options: `--rounds`, `--save` and its own."""
        parser = ArgumentParser(f"bench {self.name}", description=self.title)
        parser.add_argument("--rounds", type=int, default=self.rounds, help="measured, by turns")
        parser.add_argument("--save", action="store_true", help="write the figures into docs/")
        self.add_arguments(parser)
        return parser.parse_args(arguments)

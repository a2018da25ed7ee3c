"""Give files to a target once more: `replay.py TARGET FILE…`; what it raises is the finding."""

import argparse
from importlib import import_module
from pathlib import Path

from fuzz.target import NAMES, Target


def main() -> None:
    """Run each file; the first that breaks the target ends it with a traceback."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=NAMES)
    parser.add_argument("file", nargs="+", type=Path)
    options = parser.parse_args()
    target: Target = import_module(f"fuzz.{options.target}").TARGET
    for path in options.file:
        target.run(path.read_bytes())
        print(f"{path}: nothing is wrong")  # noqa: T201


if __name__ == "__main__":
    main()

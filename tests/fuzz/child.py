"""One target under atheris: libFuzzer's process. `run.py` starts it; its arguments are theirs."""

import sys
from importlib import import_module
from random import Random

import atheris  # type: ignore[import-untyped] # in a directory of its own, made by `make fuzz`

from fuzz.mutation import mutate_json
from fuzz.target import GUIDED_TOO, Target

JSON_SHARE = 0.7  # of the changes to a JSON target, those that leave it JSON


def main() -> None:
    """Fuzz the target named first until libFuzzer's limits."""
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=["paywatch", *GUIDED_TOO.get(name, ())]):
        target: Target = import_module(f"fuzz.{name}").TARGET

    def mutate(raw: bytes, max_size: int, seed: int) -> bytes:
        rng = Random(seed)
        if rng.random() < JSON_SHARE:
            changed = mutate_json(raw, rng)
            if changed != raw and len(changed) <= max_size:
                return changed
        mutated: bytes = atheris.Mutate(raw, max_size)
        return mutated

    options = {"custom_mutator": mutate} if target.is_json else {}
    atheris.Setup(sys.argv, target.run, **options)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

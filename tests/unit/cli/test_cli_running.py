"""What every command does first: here, what it spares the garbage collector."""

import gc

from paywatch.cli.running import run


async def frozen() -> tuple[int, int]:
    return gc.get_freeze_count(), gc.get_threshold()[0]


def test_what_was_loaded_before_is_not_looked_through_for_garbage() -> None:
    before, threshold = gc.get_freeze_count(), gc.get_threshold()
    try:
        count, objects = run(frozen())
    finally:
        gc.unfreeze()
        gc.set_threshold(*threshold)
    assert count > before + 10_000
    assert objects > threshold[0]

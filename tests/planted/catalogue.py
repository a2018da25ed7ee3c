"""All planted bugs."""

from typing import Final

from planted import keeping, reading, settling, telling
from planted.bug import Bug

CANARY: Final[Bug] = settling.CANARY
"""Must be caught always; a run in which it is not proves nothing of the others."""

BUGS: Final[tuple[Bug, ...]] = (
    *settling.BUGS,
    *reading.BUGS,
    *telling.BUGS,
    *keeping.BUGS,
)
ALL: Final = (CANARY, *BUGS)

"""The one place where protocols meet their implementations."""

from paywatch.wiring.daemon import run_daemon
from paywatch.wiring.database import Database, open_database, open_embedded
from paywatch.wiring.examining import examine
from paywatch.wiring.explaining import MAX_CAPTURE_BYTES, Explanation, explain_capture
from paywatch.wiring.house import House, furnish
from paywatch.wiring.roles import Role

__all__ = [
    "MAX_CAPTURE_BYTES",
    "Database",
    "Explanation",
    "House",
    "Role",
    "examine",
    "explain_capture",
    "furnish",
    "open_database",
    "open_embedded",
    "run_daemon",
]

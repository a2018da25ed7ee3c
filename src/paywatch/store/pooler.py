"""Whether a pooler stands before the database that shares connections between transactions.

What belongs to a session is worthless there: a lock that one transaction takes is held by whoever
has that connection next, and goes with nobody's death.
"""

from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

PROBLEM: Final = (
    "it leads to a pooler that shares connections between transactions, where no lock of a session"
    " holds: two daemons would read the same stream"
)
REMEDY: Final = (
    "let PAYWATCH_DATABASE_URL lead to PostgreSQL itself, or set the pooler to session mode for"
    " paywatch (PgBouncer: pool_mode=session)"
)

_ROUNDS: Final = 3  # for poolers that do not give the connection that was used last
_BACKEND = text("SELECT pg_backend_pid()")


async def shares_connections(engine: AsyncEngine) -> bool:
    """Ask by two connections, one of them with a transaction open, who answers them.

    Directly, and in session mode, each has a backend of its own, always the same. In transaction
    mode the transaction takes the backend that answered the other one last, or the other one's next
    statement is answered by another.
    """
    async with engine.connect() as idle, engine.connect() as busy:
        await idle.execution_options(isolation_level="AUTOCOMMIT")
        own = await _backend(idle)
        for _ in range(_ROUNDS):
            async with busy.begin():
                if own == await _backend(busy) or own != await _backend(idle):
                    return True
    return False


async def _backend(conn: AsyncConnection) -> int:
    return int((await conn.execute(_BACKEND)).scalar_one())

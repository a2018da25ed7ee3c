"""What the doctor and the page of readiness ask the database."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

_SERVER = text(
    """
SELECT current_setting('server_version_num')::int AS version_num,
       current_setting('server_version') AS version,
       current_setting('fsync') AS fsync,
       current_setting('full_page_writes') AS full_page_writes,
       current_setting('max_connections')::int AS max_connections,
       current_setting('server_encoding') AS encoding,
       pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on' AS read_only
"""
)

_ENDPOINTS = text(
    "SELECT id, url, sealed_secret, disabled_at, disabled_reason FROM endpoints ORDER BY id"
)


async def read_server(conn: AsyncConnection) -> Row[Any]:
    """Read what kind of server it is; the columns are those of the statement above."""
    return (await conn.execute(_SERVER)).one()


async def read_endpoints(conn: AsyncConnection) -> Sequence[Row[Any]]:
    """Read every endpoint, disabled ones included."""
    return (await conn.execute(_ENDPOINTS)).all()

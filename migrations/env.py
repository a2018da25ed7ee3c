"""What alembic runs: the program's connection, or PAYWATCH_DATABASE_URL for developers."""

import os

from alembic import context
from sqlalchemy import Connection, create_engine

from paywatch.store.tables import metadata


def _run(conn: Connection) -> None:
    context.configure(connection=conn, target_metadata=metadata, compare_server_default=True)
    with context.begin_transaction():
        context.run_migrations()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:
    url = os.environ["PAYWATCH_DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://", 1)
    with create_engine(url).begin() as own:
        _run(own)

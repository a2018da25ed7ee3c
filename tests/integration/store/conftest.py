"""A database with full tables, for whoever looks at query plans."""

from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import Connection, create_engine, text

from paywatch.store.engine import sqlalchemy_url
from support.plans import fill


@pytest.fixture(scope="session")
def full(cluster: str, template: str) -> Iterator[Connection]:
    """A connection to a database with full, analyzed tables; what is done there is rolled back."""
    with psycopg.connect(cluster, autocommit=True) as server:
        server.execute(f"CREATE DATABASE full_tables TEMPLATE {template}")
        engine = create_engine(sqlalchemy_url(cluster).set(database="full_tables"))
        with engine.begin() as conn:
            fill(conn)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.execute(text("VACUUM ANALYZE"))
        with engine.connect() as conn:
            yield conn
        engine.dispose()
        server.execute("DROP DATABASE full_tables WITH (FORCE)")

"""Statements that go to psycopg by themselves, in a transaction of SQLAlchemy's.

SQLAlchemy takes a tenth of a millisecond for each statement, as much as psycopg and the server
together take for a short one. For those of a settlement that is a tenth of the way of a payment to
its merchant; what is in less of a hurry goes the usual way.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final, TypeAlias, cast

import psycopg
from sqlalchemy import TextClause
from sqlalchemy.dialects.postgresql.psycopg import dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from paywatch.errors import StoreError

Cursor: TypeAlias = psycopg.AsyncCursor[tuple[Any, ...]]
Driver: TypeAlias = psycopg.AsyncConnection[tuple[Any, ...]]

_DIALECT: Final = dialect()  # type: ignore[no-untyped-call] # SQLAlchemy's lack


async def execute(
    conn: AsyncConnection, statement: TextClause, parameters: Mapping[str, object]
) -> Cursor:
    """Execute one statement; its rows are plain tuples.

    Raises:
        DBAPIError: as `conn.execute`, but without the parameters: they are as long as a batch.
        StoreError: no transaction has been opened.
    """
    driver = _driver(conn)
    try:
        return await driver.execute(_sql(statement), parameters)
    except psycopg.Error as error:
        if driver.closed:
            await conn.invalidate(error)  # else the pool would lend it again
        raise DBAPIError.instance(
            _sql(statement),
            None,
            error,
            psycopg.Error,
            hide_parameters=True,
            connection_invalidated=driver.closed,
        ) from error
    except BaseException as error:  # canceled, most likely: nobody else must find this answer
        await conn.invalidate(error)
        raise


def _driver(conn: AsyncConnection) -> Driver:
    if conn.sync_connection is None or not conn.in_transaction():
        raise StoreError("no transaction is open: psycopg would begin one that nobody commits")
    return cast("Driver", conn.sync_connection.connection.driver_connection)


@cache  # statements are constants
def _sql(statement: TextClause) -> str:
    return str(statement.compile(dialect=_DIALECT))

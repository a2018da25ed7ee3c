"""Bring a database to this version's schema: the alembic scripts, under a lock and time limits."""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from paywatch.errors import MigrationError

MIGRATION_LOCK: Final = 0x7061_7977  # "payw": one migration at a time, whoever starts it
LOCK_TIMEOUT_S: float = 10  # a migration that cannot have its locks must not block the daemon's
STATEMENT_TIMEOUT_S: Final = 300


def scripts_directory() -> Path:
    """Find the scripts: inside the installed package, or beside `src/` in a checkout."""
    package = Path(__file__).parents[1]
    carried = package / "migrations"
    return carried if carried.is_dir() else package.parents[1] / "migrations"


def configuration() -> Config:
    """Give alembic's configuration; the database is passed as a connection."""
    config = Config()
    config.set_main_option("script_location", str(scripts_directory()))
    return config


def migrate(url: URL, revision: str = "head") -> str | None:
    """Upgrade the database at `url` to `revision`, and return where it stands.

    Waits up to LOCK_TIMEOUT_S for a migration that somebody else is running. Safe to repeat.

    Raises:
        MigrationError: another migration holds the lock, or a newer version made the schema.
        sqlalchemy.exc.DBAPIError: a script failed, or a time limit ran out; nothing was changed,
            for PostgreSQL's DDL is transactional.
    """
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as conn:
        conn.execute(text(f"SET LOCAL lock_timeout = {int(LOCK_TIMEOUT_S * 1000)}"))
        conn.execute(text(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_S * 1000}"))
        _lock(conn)
        _require_known(current_revision(conn))
        config = configuration()
        config.attributes["connection"] = conn
        command.upgrade(config, revision)
        return current_revision(conn)


def _lock(conn: Connection) -> None:
    try:
        conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != "55P03":
            raise
        raise MigrationError(
            f"another migration has been running for {LOCK_TIMEOUT_S} s: let it end, then repeat"
        ) from error


def head_revision() -> str | None:
    """Name the revision that this version of the program needs."""
    return ScriptDirectory.from_config(configuration()).get_current_head()


def current_revision(conn: Connection) -> str | None:
    """Name the revision that the database is at; None for an empty database."""
    return MigrationContext.configure(conn).get_current_revision()


def require_current(conn: Connection) -> None:
    """Refuse to work on another schema.

    Raises:
        MigrationError: the database is at another revision than the program.
    """
    found, needed = current_revision(conn), head_revision()
    if found == needed:
        return
    _require_known(found)
    has = f"the database schema is at {found}" if found else "the database has no schema yet"
    raise MigrationError(f"{has}, this version needs {needed}: run `paywatch migrate`")


def _require_known(found: str | None) -> None:
    """Refuse what a newer version has made, as after a roll-back: there is no way down."""
    scripts = ScriptDirectory.from_config(configuration()).walk_revisions()
    if found is not None and found not in {script.revision for script in scripts}:
        raise MigrationError(
            f"the database schema is at {found}, which this version does not know: install the"
            " version of paywatch that made it, or a later one"
        )

"""The schema that the migrations build is the one that the tables describe."""

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from paywatch.errors import MigrationError
from paywatch.store import migrate as migrate_module
from paywatch.store.engine import sqlalchemy_url
from paywatch.store.migrate import (
    MIGRATION_LOCK,
    configuration,
    head_revision,
    migrate,
    require_current,
)
from paywatch.store.tables import metadata
from support import ACCOUNT

# Autogenerate does not see these; PostgreSQL's catalog does.
CATALOG = """
SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid)
  FROM pg_constraint WHERE connamespace = 'public'::regnamespace
   AND conrelid::regclass::text <> 'alembic_version'
UNION ALL
SELECT 'index', tablename, indexname, indexdef FROM pg_indexes
 WHERE schemaname = 'public' AND tablename <> 'alembic_version'
UNION ALL
SELECT 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(oid)
  FROM pg_trigger WHERE NOT tgisinternal
UNION ALL
SELECT 'function', proname, '', pg_get_functiondef(oid)
  FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL
SELECT 'column', table_name, column_name,
       concat_ws(' ', data_type, is_nullable, column_default, is_identity, generation_expression)
  FROM information_schema.columns
 WHERE table_schema = 'public' AND table_name <> 'alembic_version'
ORDER BY 1, 2, 3
"""


def catalog(url: str) -> list[tuple[str, ...]]:
    with psycopg.connect(url) as conn:
        return conn.execute(CATALOG).fetchall()


def revisions() -> list[str]:
    scripts = ScriptDirectory.from_config(configuration())
    return [script.revision for script in reversed(list(scripts.walk_revisions()))]


def test_migrations_build_what_the_tables_describe(
    empty_database_url: str, database_url: str
) -> None:
    engine = create_engine(sqlalchemy_url(empty_database_url))
    metadata.create_all(engine)
    engine.dispose()
    described = catalog(empty_database_url)
    assert len(described) > 100
    assert catalog(database_url) == described


def test_autogenerate_finds_nothing_to_do(database_url: str) -> None:
    engine = create_engine(sqlalchemy_url(database_url))
    with engine.connect() as conn:
        assert compare_metadata(MigrationContext.configure(conn), metadata) == []
    engine.dispose()


def test_step_by_step_equals_all_at_once_and_steps_can_be_taken_back(
    empty_database_url: str, database_url: str
) -> None:
    for revision in revisions():
        assert migrate(sqlalchemy_url(empty_database_url), revision) == revision
    assert catalog(empty_database_url) == catalog(database_url)

    engine = create_engine(sqlalchemy_url(empty_database_url))
    with engine.begin() as conn:
        config = configuration()
        config.attributes["connection"] = conn
        command.downgrade(config, "base")
    engine.dispose()
    assert catalog(empty_database_url) == []


def test_migrating_twice_changes_nothing(database_url: str) -> None:
    before = catalog(database_url)
    assert migrate(sqlalchemy_url(database_url)) == head_revision()
    assert catalog(database_url) == before


def test_a_second_migration_waits_for_the_first_and_says_so(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate_module, "LOCK_TIMEOUT_S", 0.05)
    with psycopg.connect(empty_database_url) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", [MIGRATION_LOCK])
        with pytest.raises(MigrationError, match="another migration"):
            migrate(sqlalchemy_url(empty_database_url))
    assert catalog(empty_database_url) == []


def test_another_schema_is_refused_with_the_remedy(empty_database_url: str) -> None:
    engine = create_engine(sqlalchemy_url(empty_database_url))
    with engine.connect() as conn, pytest.raises(MigrationError, match="paywatch migrate"):
        require_current(conn)
    engine.dispose()


def test_the_schema_of_a_newer_version_is_refused_and_left_alone(database_url: str) -> None:
    """As after a roll-back of the program: to migrate again would not help."""
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("UPDATE alembic_version SET version_num = '9999'")
    newer = "at 9999, which this version does not know: install the version"
    with pytest.raises(MigrationError, match=newer):
        migrate(sqlalchemy_url(database_url))
    engine = create_engine(sqlalchemy_url(database_url))
    with engine.connect() as conn, pytest.raises(MigrationError, match=newer):
        require_current(conn)
    engine.dispose()


def test_a_cursor_that_can_go_down_is_refused_by_the_database(database_url: str) -> None:
    account = ACCOUNT
    with psycopg.connect(database_url) as conn:
        conn.execute("INSERT INTO merchants VALUES (gen_random_uuid(), 'm', now())")
        conn.execute("INSERT INTO accounts SELECT %s, id, 0, now() FROM merchants", [account])
        conn.execute(
            "INSERT INTO cursors (stream, account, position, updated_at)"
            " VALUES ('live', %s, 7, now())",
            [account],
        )
        conn.execute("UPDATE cursors SET position = 7, epoch = 1")
        for lower in ("position = 6", "epoch = 0"):
            with pytest.raises(psycopg.errors.CheckViolation), conn.transaction():
                conn.execute(f"UPDATE cursors SET {lower}")


def test_a_session_opened_before_there_were_policies_keeps_what_it_was_promised(
    empty_database_url: str,
) -> None:
    url = sqlalchemy_url(empty_database_url)
    migrate(url, "0001")
    with psycopg.connect(empty_database_url) as conn:
        conn.execute("INSERT INTO merchants VALUES (gen_random_uuid(), 'm', now())")
        conn.execute("INSERT INTO accounts SELECT %s, id, 0, now() FROM merchants", [ACCOUNT])
        conn.execute(
            "INSERT INTO checkout_sessions (id, merchant_id, account, memo_type, memo, muxed_id,"
            " asset, amount, expires_at, created_at, updated_at, opened_position)"
            " SELECT gen_random_uuid(), merchant_id, account, 'id', int8send(1), 1, 'native', 100,"
            " now() + interval '1 h', now(), now(), 0 FROM accounts"
        )
    migrate(url)
    with psycopg.connect(empty_database_url) as conn:
        terms = conn.execute(
            "SELECT least_amount = amount, accept_until = expires_at, text_for_id"
            " FROM checkout_sessions"
        ).fetchall()
        assert terms == [(True, True, False)]
        policy = conn.execute("SELECT tolerance_bps, late_grace_s, text_for_id FROM merchants")
        assert policy.fetchall() == [(0, None, True)]

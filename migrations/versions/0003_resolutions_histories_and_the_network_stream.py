"""Words on held credits, histories of the network, accepted gaps and the network-wide stream."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_LOWER_CURSOR = (
    "CREATE TRIGGER refuse_lower_cursor BEFORE UPDATE ON cursors"
    " FOR EACH ROW WHEN ({}) EXECUTE FUNCTION refuse_lower_cursor()"
)
_RETURNED = "(outcome = 'returned')"
_RESOLVED = "held_as IS NOT NULL"
_HELD = "outcome NOT IN ('applied', 'returned')"


def upgrade() -> None:
    op.create_table(
        "histories",
        sa.Column("number", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("start_position", sa.BigInteger(), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("number > 0", name=op.f("ck_histories_number_range")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_histories")),
    )
    op.create_table(
        "landmarks",
        sa.Column("history", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("ledger", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("ledger > 1", name=op.f("ck_landmarks_ledger_range")),
        sa.CheckConstraint("octet_length(hash) = 32", name=op.f("ck_landmarks_hash_length")),
        sa.PrimaryKeyConstraint("history", name=op.f("pk_landmarks")),
    )
    op.create_table(
        "accepted_gaps",
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("history", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("after_position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("upto_position", sa.BigInteger(), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "upto_position > after_position", name=op.f("ck_accepted_gaps_gap_not_empty")
        ),
        sa.PrimaryKeyConstraint(
            "stream", "history", "after_position", name=op.f("pk_accepted_gaps")
        ),
    )
    op.add_column(
        "accounts",
        sa.Column("followed_by", sa.Text(), server_default=sa.text("'account'"), nullable=False),
    )
    op.create_check_constraint(
        op.f("ck_accounts_followed_by_known"), "accounts", "followed_by IN ('account', 'network')"
    )
    op.add_column(
        "checkout_sessions",
        sa.Column("announced_until", sa.DateTime(timezone=True), nullable=True),
    )
    _processing(
        "says_what_and_since",
        "num_nulls(announced_tx_hash, announced_at) = 0",
        instead_of="says_since",
    )
    _histories_of_positions()
    _words_on_held_credits()
    _events_of_credits()


def _histories_of_positions() -> None:
    for table, column in (
        ("cursors", "history"),
        ("credits", "history"),
        ("payments", "history"),
        ("quarantine", "history"),
        ("checkout_sessions", "opened_history"),
    ):
        op.add_column(
            table,
            sa.Column(column, sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        )
    op.alter_column("cursors", "account", nullable=True)
    op.execute("DROP TRIGGER refuse_lower_cursor ON cursors")
    op.execute(
        _LOWER_CURSOR.format(
            "NEW.position < OLD.position AND NEW.history <= OLD.history"
            " OR NEW.epoch < OLD.epoch OR NEW.history < OLD.history"
        )
    )
    for table, key in (
        ("credits", ["operation_id", "change_index", "history"]),
        ("quarantine", ["stream", "operation_id", "history"]),
    ):
        op.drop_constraint(op.f(f"pk_{table}"), table)
        op.create_primary_key(op.f(f"pk_{table}"), table, key)
    op.drop_constraint(op.f("fk_credits_payment_tx_hash"), "credits")
    op.drop_constraint(op.f("pk_payments"), "payments")
    op.create_primary_key(op.f("pk_payments"), "payments", ["tx_hash", "history"])
    op.create_foreign_key(
        op.f("fk_credits_payment_tx_hash_history"),
        "credits",
        "payments",
        ["payment_tx_hash", "history"],
        ["tx_hash", "history"],
    )


def _words_on_held_credits() -> None:
    op.add_column("credits", sa.Column("held_as", sa.Text(), nullable=True))
    op.add_column("credits", sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("credits", sa.Column("returned_by_tx", sa.LargeBinary(), nullable=True))
    _outcomes("'applied', 'unmatched', 'duplicate', 'late', 'wrong_asset', 'canceled', 'returned'")
    _session_if_matched(
        "CASE outcome WHEN 'unmatched' THEN session_id IS NULL WHEN 'returned' THEN true"
        " ELSE session_id IS NOT NULL END"
    )
    for name, condition in (
        ("held_as_known", "held_as NOT IN ('applied', 'returned')"),
        ("resolved_whole", "(held_as IS NULL) = (resolved_at IS NULL)"),
        ("resolved_by_a_word", "held_as IS NULL OR outcome IN ('applied', 'returned')"),
        (
            "returned_says_how",
            f"{_RETURNED} = (returned_by_tx IS NOT NULL) AND (NOT {_RETURNED} OR {_RESOLVED})",
        ),
        ("returned_by_tx_length", "octet_length(returned_by_tx) = 32"),
    ):
        op.create_check_constraint(op.f(f"ck_credits_{name}"), "credits", condition)
    for name, condition in (("held", _HELD), ("resolved", _RESOLVED)):
        op.create_index(
            f"ix_credits_{name}",
            "credits",
            ["account", "operation_id"],
            postgresql_where=sa.text(condition),
        )
    op.create_index(
        "ix_credits_returned_by_tx",
        "credits",
        ["returned_by_tx"],
        postgresql_where=sa.text("returned_by_tx IS NOT NULL"),
    )


def _events_of_credits() -> None:
    op.add_column("events", sa.Column("operation_id", sa.BigInteger(), nullable=True))
    op.add_column("events", sa.Column("change_index", sa.SmallInteger(), nullable=True))
    op.add_column("events", sa.Column("history", sa.SmallInteger(), nullable=True))
    op.create_foreign_key(
        op.f("fk_events_operation_id_change_index_history"),
        "events",
        "credits",
        ["operation_id", "change_index", "history"],
        ["operation_id", "change_index", "history"],
    )
    op.create_check_constraint(
        op.f("ck_events_credit_whole"),
        "events",
        "num_nulls(operation_id, change_index, history) IN (0, 3)",
    )
    op.create_index(
        "ix_events_operation_id",
        "events",
        ["operation_id"],
        postgresql_where=sa.text("operation_id IS NOT NULL"),
    )


def downgrade() -> None:
    """Go back, where nothing has used what is new; PostgreSQL refuses it otherwise."""
    op.drop_index("ix_events_operation_id", "events")
    op.drop_constraint(op.f("fk_events_operation_id_change_index_history"), "events")
    for column in ("operation_id", "change_index", "history"):
        op.drop_column("events", column)

    op.drop_index("ix_credits_returned_by_tx", "credits")
    op.drop_index("ix_credits_resolved", "credits")
    op.drop_index("ix_credits_held", "credits")
    for column in ("held_as", "resolved_at", "returned_by_tx"):
        op.drop_column("credits", column)
    _outcomes("'applied', 'unmatched', 'duplicate', 'late', 'wrong_asset', 'canceled'")
    _session_if_matched("(outcome = 'unmatched') = (session_id IS NULL)")

    op.drop_constraint(op.f("fk_credits_payment_tx_hash_history"), "credits")
    for table, key in (
        ("payments", ["tx_hash"]),
        ("credits", ["operation_id", "change_index"]),
        ("quarantine", ["stream", "operation_id"]),
    ):
        op.drop_constraint(op.f(f"pk_{table}"), table)
        op.create_primary_key(op.f(f"pk_{table}"), table, key)
    op.create_foreign_key(
        op.f("fk_credits_payment_tx_hash"),
        "credits",
        "payments",
        ["payment_tx_hash"],
        ["tx_hash"],
    )
    op.execute("DROP TRIGGER refuse_lower_cursor ON cursors")
    op.execute(_LOWER_CURSOR.format("NEW.position < OLD.position OR NEW.epoch < OLD.epoch"))
    op.alter_column("cursors", "account", nullable=False)
    for table in ("cursors", "credits", "payments", "quarantine"):
        op.drop_column(table, "history")
    op.drop_column("checkout_sessions", "opened_history")

    _processing("says_since", "announced_at IS NOT NULL", instead_of="says_what_and_since")
    op.drop_column("checkout_sessions", "announced_until")
    op.drop_column("accounts", "followed_by")
    op.drop_table("accepted_gaps")
    op.drop_table("landmarks")
    op.drop_table("histories")


def _outcomes(values: str) -> None:
    name = op.f("ck_credits_outcome_known")
    op.drop_constraint(name, "credits")
    op.create_check_constraint(name, "credits", f"outcome IN ({values})")


def _session_if_matched(condition: str) -> None:
    name = op.f("ck_credits_session_if_matched")
    op.drop_constraint(name, "credits")
    op.create_check_constraint(name, "credits", condition)


def _processing(name: str, condition: str, *, instead_of: str) -> None:
    prefix = "ck_checkout_sessions_processing_"
    op.drop_constraint(op.f(f"{prefix}{instead_of}"), "checkout_sessions")
    op.create_check_constraint(
        op.f(f"{prefix}{name}"), "checkout_sessions", f"status <> 'processing' OR {condition}"
    )

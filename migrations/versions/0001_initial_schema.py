"""initial schema."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "merchants",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 200", name=op.f("ck_merchants_name_length")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_merchants")),
    )
    op.create_table(
        "payments",
        sa.Column("tx_hash", sa.LargeBinary(), nullable=False),
        sa.Column("inner_tx_hash", sa.LargeBinary(), nullable=True),
        sa.Column("ledger", sa.BigInteger(), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("payer", sa.Text(), nullable=False),
        sa.Column("memo_type", sa.Text(), nullable=False),
        sa.Column("memo", sa.LargeBinary(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "memo_type IN ('none', 'text', 'id', 'hash', 'return')",
            name=op.f("ck_payments_memo_type_known"),
        ),
        sa.CheckConstraint(
            "octet_length(inner_tx_hash) = 32", name=op.f("ck_payments_inner_tx_hash_length")
        ),
        sa.CheckConstraint("octet_length(tx_hash) = 32", name=op.f("ck_payments_tx_hash_length")),
        sa.PrimaryKeyConstraint("tx_hash", name=op.f("pk_payments")),
    )
    op.create_index("ix_payments_recorded_at", "payments", ["recorded_at"], unique=False)
    op.create_table(
        "quarantine",
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("operation_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("quarantined_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("stream", "operation_id", name=op.f("pk_quarantine")),
    )
    op.create_table(
        "accounts",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("merchant_id", sa.Uuid(), nullable=False),
        sa.Column("start_position", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("account ~ '^G[A-Z2-7]{55}$'", name=op.f("ck_accounts_account_form")),
        sa.CheckConstraint("start_position >= 0", name=op.f("ck_accounts_start_position_range")),
        sa.ForeignKeyConstraint(
            ["merchant_id"], ["merchants.id"], name=op.f("fk_accounts_merchant_id")
        ),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_accounts")),
        sa.UniqueConstraint("account", "merchant_id", name=op.f("uq_accounts_account_merchant_id")),
    )
    op.create_index(op.f("ix_accounts_merchant_id"), "accounts", ["merchant_id"], unique=False)
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("merchant_id", sa.Uuid(), nullable=False),
        sa.Column("key_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "octet_length(key_sha256) = 32", name=op.f("ck_api_keys_key_sha256_length")
        ),
        sa.ForeignKeyConstraint(
            ["merchant_id"], ["merchants.id"], name=op.f("fk_api_keys_merchant_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("key_sha256", name=op.f("uq_api_keys_key_sha256")),
    )
    op.create_index(op.f("ix_api_keys_merchant_id"), "api_keys", ["merchant_id"], unique=False)
    op.create_table(
        "endpoints",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("merchant_id", sa.Uuid(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(disabled_at IS NULL) = (disabled_reason IS NULL)",
            name=op.f("ck_endpoints_disabled_why"),
        ),
        sa.ForeignKeyConstraint(
            ["merchant_id"], ["merchants.id"], name=op.f("fk_endpoints_merchant_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_endpoints")),
        sa.UniqueConstraint("merchant_id", name=op.f("uq_endpoints_merchant_id")),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("merchant_id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("subject", sa.Uuid(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("octet_length(payload) < 20480", name=op.f("ck_events_payload_length")),
        sa.ForeignKeyConstraint(
            ["merchant_id"], ["merchants.id"], name=op.f("fk_events_merchant_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sa.UniqueConstraint("subject", "type", name=op.f("uq_events_subject_type")),
    )
    op.create_index("ix_events_recorded_at", "events", ["recorded_at"], unique=False)
    op.create_table(
        "checkout_sessions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("merchant_id", sa.Uuid(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("memo_type", sa.Text(), nullable=False),
        sa.Column("memo", sa.LargeBinary(), nullable=False),
        sa.Column("muxed_id", sa.BigInteger(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("received", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("paid_how", sa.Text(), nullable=True),
        sa.Column("paid_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("opened_position", sa.BigInteger(), nullable=False),
        sa.Column("announced_tx_hash", sa.LargeBinary(), nullable=True),
        sa.Column("announced_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column(
            "metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("success_url", sa.Text(), nullable=True),
        sa.Column("cancel_url", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(status = 'paid') = (paid_at IS NOT NULL)"
            " AND (status = 'paid') = (paid_how IS NOT NULL)",
            name=op.f("ck_checkout_sessions_paid_says_how"),
        ),
        sa.CheckConstraint(
            "memo_type IN ('id', 'text', 'hash')", name=op.f("ck_checkout_sessions_memo_type_known")
        ),
        sa.CheckConstraint(
            "octet_length(memo) BETWEEN 1 AND 28 AND memo_type = 'text'"
            " OR octet_length(memo) = 8 AND memo_type = 'id'"
            " OR octet_length(memo) = 32 AND memo_type = 'hash'",
            name=op.f("ck_checkout_sessions_memo_length"),
        ),
        sa.CheckConstraint(
            "paid_how IN ('exact', 'over')", name=op.f("ck_checkout_sessions_paid_how_known")
        ),
        sa.CheckConstraint(
            "status <> 'processing' OR announced_at IS NOT NULL",
            name=op.f("ck_checkout_sessions_processing_says_since"),
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'processing', 'partially_paid', 'paid', 'expired', 'canceled')",
            name=op.f("ck_checkout_sessions_status_known"),
        ),
        sa.CheckConstraint("amount > 0", name=op.f("ck_checkout_sessions_amount_positive")),
        sa.CheckConstraint(
            "expires_at > created_at", name=op.f("ck_checkout_sessions_expires_after_creation")
        ),
        sa.CheckConstraint(
            "length(reference) <= 200", name=op.f("ck_checkout_sessions_reference_length")
        ),
        sa.CheckConstraint("muxed_id >= 0", name=op.f("ck_checkout_sessions_muxed_id_range")),
        sa.CheckConstraint(
            "octet_length(announced_tx_hash) = 32",
            name=op.f("ck_checkout_sessions_announced_tx_hash_length"),
        ),
        sa.CheckConstraint(
            "received >= 0", name=op.f("ck_checkout_sessions_received_not_negative")
        ),
        sa.ForeignKeyConstraint(
            ["account", "merchant_id"],
            ["accounts.account", "accounts.merchant_id"],
            name=op.f("fk_checkout_sessions_account_merchant_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_checkout_sessions")),
        sa.UniqueConstraint(
            "account", "memo_type", "memo", name=op.f("uq_checkout_sessions_account_memo_type_memo")
        ),
        sa.UniqueConstraint(
            "account", "muxed_id", name=op.f("uq_checkout_sessions_account_muxed_id")
        ),
    )
    op.create_index(
        "ix_checkout_sessions_open",
        "checkout_sessions",
        ["account", "expires_at"],
        unique=False,
        postgresql_where=sa.text("status IN ('pending', 'processing', 'partially_paid')"),
    )
    op.create_index(
        "ix_checkout_sessions_processing",
        "checkout_sessions",
        ["announced_at"],
        unique=False,
        postgresql_where=sa.text("status = 'processing'"),
    )
    op.create_index(
        "ix_checkout_sessions_updated_at", "checkout_sessions", ["updated_at"], unique=False
    )
    op.create_table(
        "cursors",
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("end_position", sa.BigInteger(), nullable=True),
        sa.Column("read_through_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("position >= 0", name=op.f("ck_cursors_position_range")),
        sa.ForeignKeyConstraint(["account"], ["accounts.account"], name=op.f("fk_cursors_account")),
        sa.PrimaryKeyConstraint("stream", name=op.f("pk_cursors")),
    )
    op.create_index(op.f("ix_cursors_account"), "cursors", ["account"], unique=False)
    op.create_table(
        "deliveries",
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts_made", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_token", sa.Uuid(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("dead_reason", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(state = 'dead') = (dead_reason IS NOT NULL)", name=op.f("ck_deliveries_dead_says_why")
        ),
        sa.CheckConstraint(
            "(state = 'pending') = (ended_at IS NULL)", name=op.f("ck_deliveries_ended_says_when")
        ),
        sa.CheckConstraint(
            "lease_token IS NULL OR state = 'pending'",
            name=op.f("ck_deliveries_lease_while_pending"),
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'delivered', 'dead')", name=op.f("ck_deliveries_state_known")
        ),
        sa.CheckConstraint(
            "(lease_token IS NULL) = (lease_until IS NULL)", name=op.f("ck_deliveries_lease_whole")
        ),
        sa.ForeignKeyConstraint(
            ["endpoint_id"], ["endpoints.id"], name=op.f("fk_deliveries_endpoint_id")
        ),
        sa.ForeignKeyConstraint(["event_id"], ["events.id"], name=op.f("fk_deliveries_event_id")),
        sa.PrimaryKeyConstraint("event_id", "endpoint_id", name=op.f("pk_deliveries")),
    )
    op.create_index(
        "ix_deliveries_dead",
        "deliveries",
        ["ended_at"],
        unique=False,
        postgresql_where=sa.text("state = 'dead'"),
    )
    op.create_index(
        "ix_deliveries_due",
        "deliveries",
        ["endpoint_id", "due_at"],
        unique=False,
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "ix_deliveries_leased",
        "deliveries",
        ["lease_until"],
        unique=False,
        postgresql_where=sa.text("lease_token IS NOT NULL"),
    )
    op.create_table(
        "attempts",
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("status_code", sa.SmallInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("answer", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("number >= 1", name=op.f("ck_attempts_number_from_one")),
        sa.CheckConstraint("octet_length(answer) <= 4096", name=op.f("ck_attempts_answer_length")),
        sa.ForeignKeyConstraint(
            ["event_id", "endpoint_id"],
            ["deliveries.event_id", "deliveries.endpoint_id"],
            name=op.f("fk_attempts_event_id_endpoint_id"),
        ),
        sa.PrimaryKeyConstraint("event_id", "endpoint_id", "number", name=op.f("pk_attempts")),
    )
    op.create_table(
        "credits",
        sa.Column("operation_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("change_index", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("muxed_id", sa.Numeric(precision=20, scale=0), nullable=True),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("tx_hash", sa.LargeBinary(), nullable=False),
        sa.Column("inner_tx_hash", sa.LargeBinary(), nullable=True),
        sa.Column("payer", sa.Text(), nullable=False),
        sa.Column("memo_type", sa.Text(), nullable=False),
        sa.Column("memo", sa.LargeBinary(), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=True),
        sa.Column(
            "payment_tx_hash",
            sa.LargeBinary(),
            sa.Computed("CASE WHEN outcome = 'applied' THEN tx_hash END", persisted=True),
            nullable=True,
        ),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(outcome = 'unmatched') = (session_id IS NULL)",
            name=op.f("ck_credits_session_if_matched"),
        ),
        sa.CheckConstraint(
            "memo_type IN ('none', 'text', 'id', 'hash', 'return')",
            name=op.f("ck_credits_memo_type_known"),
        ),
        sa.CheckConstraint(
            "outcome IN ('applied', 'unmatched', 'duplicate', 'late', 'wrong_asset', 'canceled')",
            name=op.f("ck_credits_outcome_known"),
        ),
        sa.CheckConstraint("amount > 0", name=op.f("ck_credits_amount_positive")),
        sa.CheckConstraint("change_index >= 0", name=op.f("ck_credits_change_index_range")),
        sa.CheckConstraint("octet_length(tx_hash) = 32", name=op.f("ck_credits_tx_hash_length")),
        sa.ForeignKeyConstraint(["account"], ["accounts.account"], name=op.f("fk_credits_account")),
        sa.ForeignKeyConstraint(
            ["payment_tx_hash"], ["payments.tx_hash"], name=op.f("fk_credits_payment_tx_hash")
        ),
        sa.ForeignKeyConstraint(
            ["session_id"], ["checkout_sessions.id"], name=op.f("fk_credits_session_id")
        ),
        sa.PrimaryKeyConstraint("operation_id", "change_index", name=op.f("pk_credits")),
    )
    op.create_index(
        op.f("ix_credits_payment_tx_hash"), "credits", ["payment_tx_hash"], unique=False
    )
    op.create_index("ix_credits_recorded_at", "credits", ["recorded_at"], unique=False)
    op.create_index(
        "ix_credits_session_id",
        "credits",
        ["session_id"],
        unique=False,
        postgresql_where=sa.text("session_id IS NOT NULL"),
    )
    op.create_table(
        "session_transitions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("before", sa.Text(), nullable=False),
        sa.Column("after", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("operation_id", sa.BigInteger(), nullable=True),
        sa.Column("change_index", sa.SmallInteger(), nullable=True),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"], ["checkout_sessions.id"], name=op.f("fk_session_transitions_session_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_session_transitions")),
    )
    op.create_index(
        op.f("ix_session_transitions_session_id"),
        "session_transitions",
        ["session_id"],
        unique=False,
    )

    # A cursor that can go down goes unnoticed by every other check.
    op.execute(
        """
CREATE FUNCTION refuse_lower_cursor() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'cursor of stream % may not go down from % to %',
        OLD.stream, OLD.position, NEW.position USING ERRCODE = 'check_violation';
END $$"""
    )
    op.execute(
        """
CREATE TRIGGER refuse_lower_cursor BEFORE UPDATE ON cursors
FOR EACH ROW WHEN (NEW.position < OLD.position OR NEW.epoch < OLD.epoch)
EXECUTE FUNCTION refuse_lower_cursor()"""
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_session_transitions_session_id"), table_name="session_transitions")
    op.drop_table("session_transitions")
    op.drop_index(
        "ix_credits_session_id",
        table_name="credits",
        postgresql_where=sa.text("session_id IS NOT NULL"),
    )
    op.drop_index("ix_credits_recorded_at", table_name="credits")
    op.drop_index(op.f("ix_credits_payment_tx_hash"), table_name="credits")
    op.drop_table("credits")
    op.drop_table("attempts")
    op.drop_index(
        "ix_deliveries_leased",
        table_name="deliveries",
        postgresql_where=sa.text("lease_token IS NOT NULL"),
    )
    op.drop_index(
        "ix_deliveries_due", table_name="deliveries", postgresql_where=sa.text("state = 'pending'")
    )
    op.drop_index(
        "ix_deliveries_dead", table_name="deliveries", postgresql_where=sa.text("state = 'dead'")
    )
    op.drop_table("deliveries")
    op.drop_index(op.f("ix_cursors_account"), table_name="cursors")
    op.drop_table("cursors")
    op.drop_index("ix_checkout_sessions_updated_at", table_name="checkout_sessions")
    op.drop_index(
        "ix_checkout_sessions_processing",
        table_name="checkout_sessions",
        postgresql_where=sa.text("status = 'processing'"),
    )
    op.drop_index(
        "ix_checkout_sessions_open",
        table_name="checkout_sessions",
        postgresql_where=sa.text("status IN ('pending', 'processing', 'partially_paid')"),
    )
    op.drop_table("checkout_sessions")
    op.drop_index("ix_events_recorded_at", table_name="events")
    op.drop_table("events")
    op.drop_table("endpoints")
    op.drop_index(op.f("ix_api_keys_merchant_id"), table_name="api_keys")
    op.drop_table("api_keys")
    op.drop_index(op.f("ix_accounts_merchant_id"), table_name="accounts")
    op.drop_table("accounts")
    op.drop_table("quarantine")
    op.drop_index("ix_payments_recorded_at", table_name="payments")
    op.drop_table("payments")
    op.drop_table("merchants")
    op.execute("DROP FUNCTION refuse_lower_cursor()")

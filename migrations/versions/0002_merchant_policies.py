"""Policies of merchants, and the terms that a session gets from them when it is opened."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "merchants",
        sa.Column("tolerance_bps", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
    )
    op.add_column("merchants", sa.Column("late_grace_s", sa.Integer(), nullable=True))
    op.add_column(
        "merchants",
        sa.Column("text_for_id", sa.Boolean(), server_default=sa.text("true"), nullable=False),
    )
    op.create_check_constraint(
        op.f("ck_merchants_tolerance_range"), "merchants", "tolerance_bps BETWEEN 0 AND 1000"
    )
    op.create_check_constraint(
        op.f("ck_merchants_late_grace_range"), "merchants", "late_grace_s BETWEEN 1 AND 2592000"
    )

    op.add_column("checkout_sessions", sa.Column("least_amount", sa.BigInteger(), nullable=True))
    op.add_column(
        "checkout_sessions", sa.Column("accept_until", sa.DateTime(timezone=True), nullable=True)
    )
    op.add_column("checkout_sessions", sa.Column("text_for_id", sa.Boolean(), nullable=True))
    # What was open before had the terms that there were: the whole amount, until the deadline,
    # named by its very memo.
    op.execute(
        "UPDATE checkout_sessions"
        " SET least_amount = amount, accept_until = expires_at, text_for_id = false"
    )
    for column in ("least_amount", "accept_until", "text_for_id"):
        op.alter_column("checkout_sessions", column, nullable=False)
    op.create_check_constraint(
        op.f("ck_checkout_sessions_least_amount_range"),
        "checkout_sessions",
        "least_amount BETWEEN 1 AND amount",
    )
    op.create_check_constraint(
        op.f("ck_checkout_sessions_accept_until_range"),
        "checkout_sessions",
        "accept_until >= expires_at",
    )
    _paid_how("'exact', 'over', 'under', 'late'")


def downgrade() -> None:
    # What was paid within a tolerance or a grace was paid as asked, before there were such terms.
    op.execute(
        "UPDATE checkout_sessions SET paid_how = 'exact' WHERE paid_how IN ('under', 'late')"
    )
    _paid_how("'exact', 'over'")
    for column in ("least_amount", "accept_until", "text_for_id"):
        op.drop_column("checkout_sessions", column)
    for column in ("tolerance_bps", "late_grace_s", "text_for_id"):
        op.drop_column("merchants", column)


def _paid_how(values: str) -> None:
    name = op.f("ck_checkout_sessions_paid_how_known")
    op.drop_constraint(name, "checkout_sessions")
    op.create_check_constraint(name, "checkout_sessions", f"paid_how IN ({values})")

"""No index of the payments in credits: a page of random keys less for each credit."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_INDEX = "ix_credits_payment_tx_hash"


def upgrade() -> None:
    op.drop_index(_INDEX, "credits")


def downgrade() -> None:
    op.create_index(_INDEX, "credits", ["payment_tx_hash"])

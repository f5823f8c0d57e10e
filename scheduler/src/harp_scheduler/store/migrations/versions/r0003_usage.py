"""What tenants have used, by the hour."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "usage",
        sa.Column("tenant", sa.Text(), primary_key=True, nullable=False),
        sa.Column("hour", sa.Text(), primary_key=True, nullable=False),
        sa.Column("device_seconds", sa.Double(), nullable=False),
        sa.Column("compute_seconds", sa.Double(), nullable=False),
        sa.Column("byte_seconds", sa.Double(), nullable=False),
        sa.Column("until", sa.Text(), nullable=False),
    )

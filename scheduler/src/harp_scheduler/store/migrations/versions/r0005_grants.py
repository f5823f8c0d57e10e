"""Since when a lease is held."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("leases", sa.Column("granted", sa.Double(), nullable=False, server_default="0"))

"""What has happened to devices that an admin has to see to."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for name, kind, before in (
        ("incident", sa.Text(), ""),
        ("incident_number", sa.BigInteger(), "0"),
    ):
        column = sa.Column(name, kind, nullable=False, server_default=before)
        op.add_column("accelerators", column)

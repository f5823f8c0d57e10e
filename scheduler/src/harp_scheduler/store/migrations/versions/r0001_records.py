"""The pool's row, its numbers, and the records of the core."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _column(name: str, kind: sa.types.TypeEngine[Any], *, key: bool = False) -> sa.Column[Any]:
    return sa.Column(name, kind, primary_key=key, nullable=False)


def upgrade() -> None:
    text, whole, flag = sa.Text(), sa.BigInteger(), sa.Boolean()
    op.create_table(
        "pool",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        _column("term", whole),
        _column("holder", text),
        sa.Column("since", text),
    )
    op.execute("INSERT INTO pool (id, term, holder) VALUES (1, 0, '')")
    op.create_table("numbers", _column("name", text, key=True), _column("value", whole))
    op.create_table(
        "servers",
        _column("name", text, key=True),
        _column("address", text),
        _column("labels", text),
        _column("cordoned", flag),
        _column("draining", flag),
    )
    op.create_table(
        "accelerators",
        _column("id", text, key=True),
        _column("server", text),
        _column("ordinal", whole),
        _column("kind", text),
        _column("model", text),
        _column("memory", whole),
        _column("labels", text),
        _column("cordoned", flag),
        _column("fault", text),
        _column("present", flag),
        _column("version", whole),
    )
    op.create_table(
        "leases",
        _column("id", text, key=True),
        _column("tenant", text),
        _column("owner", text),
        _column("demand", text),
        _column("order", whole),
        _column("name", text),
        _column("host", text),
        _column("users", text),
        _column("priority", whole),
        _column("ttl", sa.Double()),
        _column("longest", sa.Double()),
        _column("state", text),
        _column("reason", text),
        _column("slices", text),
        _column("epoch", whole),
        sa.Column("closing", text),
        _column("after", text),
    )
    op.create_table("tenants", _column("name", text, key=True), _column("quota", text))
    op.create_table("profiles", _column("name", text, key=True), _column("demand", text))
    op.create_table(
        "requests",
        _column("key", text, key=True),
        _column("caller", text),
        _column("id", text),
        _column("subject", text),
        _column("number", whole),
    )

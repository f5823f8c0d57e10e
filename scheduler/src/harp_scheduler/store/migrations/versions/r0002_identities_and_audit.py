"""The audit, join tokens, role bindings and issued certificates."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def _column(name: str, kind: sa.types.TypeEngine[Any], *, key: bool = False) -> sa.Column[Any]:
    return sa.Column(name, kind, primary_key=key, nullable=False)


def upgrade() -> None:
    text, whole, flag = sa.Text(), sa.BigInteger(), sa.Boolean()
    op.add_column("pool", sa.Column("audited", whole, nullable=False, server_default="0"))
    op.add_column("pool", sa.Column("audit_hash", text, nullable=False, server_default="0" * 64))
    op.create_table(
        "audit",
        sa.Column("sequence", whole, primary_key=True, autoincrement=False),
        *(
            _column(name, text)
            for name in (
                "time",
                "caller",
                "verb",
                "subject",
                "tenant",
                "request",
                "outcome",
                "before",
                "after",
                "previous",
                "hash",
            )
        ),
    )
    _append_only("audit")
    op.create_table(
        "tokens",
        _column("id", text, key=True),
        _column("secret_hash", text),
        _column("role", text),
        _column("name", text),
        _column("tenant", text),
        _column("labels", text),
        _column("uses_left", whole),
        _column("expires", text),
        _column("revoked", flag),
        _column("created", text),
        _column("creator", text),
    )
    op.create_table(
        "role_bindings",
        _column("principal", text, key=True),
        _column("tenant", text, key=True),
        _column("role", text),
    )
    op.create_table(
        "certificates",
        _column("serial", text, key=True),
        _column("identity", text),
        _column("not_after", text),
        _column("revoked", flag),
    )
    op.create_index("certificates_identity", "certificates", ["identity"])


def _append_only(table: str) -> None:
    """Has the database itself refuse to change or remove a row."""
    refusal = f"rows of {table} are never changed"
    if op.get_bind().dialect.name == "sqlite":
        for what in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{what.lower()} BEFORE {what} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{refusal}'); END"
            )
        return
    op.execute(
        f"CREATE FUNCTION {table}_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{refusal}'; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_refuse()"
    )

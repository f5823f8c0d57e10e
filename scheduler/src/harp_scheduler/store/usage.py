"""What tenants have used, by the hour: rows that only ever grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select

from harp_scheduler.store.database import Database
from harp_scheduler.store.records import insertion
from harp_scheduler.store.schema import usage

SUMS = ("device_seconds", "compute_seconds", "byte_seconds")


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What the leases of a tenant held within one hour."""

    tenant: str
    hour: datetime
    """When it began, UTC."""

    device_seconds: float
    """Slices times seconds."""

    compute_seconds: float
    """The same, times the share of the device's compute."""

    byte_seconds: float
    until: datetime
    """When this was measured last."""


def add(connection: Connection, rows: Sequence[UsageRow]) -> None:
    """Adds to what is stored of the same tenants and hours."""
    if not rows:
        return
    insert = insertion(connection, usage)
    values: dict[str, Any] = {name: usage.c[name] + insert.excluded[name] for name in SUMS}
    values["until"] = insert.excluded.until
    statement = insert.on_conflict_do_update(index_elements=["tenant", "hour"], set_=values)
    connection.execute(statement, [asdict(row) for row in rows])


def read(database: Database, since: datetime | None = None, tenant: str = "") -> list[UsageRow]:
    """The rows of hours from `since` on, of one tenant where given."""
    query = select(*(usage.c[field.name] for field in fields(UsageRow)))
    query = query.order_by(usage.c.tenant, usage.c.hour)
    if since is not None:
        query = query.where(usage.c.hour >= since)
    if tenant:
        query = query.where(usage.c.tenant == tenant)
    with database.reading() as connection:
        return [UsageRow(*row) for row in connection.execute(query)]


def measured(database: Database) -> dict[str, datetime]:
    """Until when each tenant's usage is stored."""
    query = select(usage.c.tenant, func.max(usage.c.until).label("until")).group_by(usage.c.tenant)
    with database.reading() as connection:
        return {row.tenant: row.until for row in connection.execute(query)}

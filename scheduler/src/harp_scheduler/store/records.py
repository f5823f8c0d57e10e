"""The core's records as rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Insert,
    Table,
    bindparam,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from harp_scheduler.core import model
from harp_scheduler.core.book import Key, Record
from harp_scheduler.store import schema
from harp_scheduler.store.errors import LeaderLost

Row = dict[str, Any]

ROWS = 5000
"""Rows that are decoded together."""


@dataclass(frozen=True)
class Kind:
    """A type of record, and where it is kept."""

    type: type[Any]
    table: Table
    columns: tuple[str, ...]
    """One for each field of the record, of its name."""

    @property
    def key(self) -> Column[Any]:
        """The column that says which record a row is."""
        (column,) = self.table.primary_key.columns
        return column

    def row(self, record: Record) -> Row:
        """The values of a record's columns."""
        return {name: getattr(record, name) for name in self.columns}

    def read(self, connection: Connection) -> Iterator[Record]:
        """All records, the requests in the order in which they came.

        A new leader waits for this: columns are decoded, which is several times as fast as rows."""
        columns = [self.table.c[name] for name in self.columns]
        query = select(*columns).order_by(self.table.c.get("number", self.key))
        # As the driver has them.
        plain = connection.exec_driver_sql(str(query.compile(connection)))
        for rows in plain.partitions(ROWS):
            values = (
                schema.decoded(column.type, connection.dialect, value)
                for column, value in zip(columns, zip(*rows, strict=True), strict=True)
            )
            yield from map(self.type, *values)


KINDS = {
    kind.__name__: Kind(kind, table, tuple(field.name for field in fields(kind)))
    for kind, table in (
        (model.Server, schema.servers),
        (model.Accelerator, schema.accelerators),
        (model.Lease, schema.leases),
        (model.Tenant, schema.tenants),
        (model.Profile, schema.profiles),
        (model.Request, schema.requests),
    )
}
"""By the class name, which is the first part of a record's key."""


class Shelf:
    """Writes what the core changed, and knows what of it must not have been changed by others."""

    def __init__(self) -> None:
        self.versions: dict[str, int] = {}
        """Of the accelerators, as this term read or wrote them last."""

        self.requests = 0
        """The number of the latest request."""

    def begin(self, connection: Connection) -> None:
        """A term begins: nothing has been read yet."""
        self.versions = {}
        newest = select(func.max(schema.requests.c.number))
        self.requests = connection.execute(newest).scalar() or 0

    def load(self, connection: Connection) -> list[Record]:
        """All records, the requests in the order in which they came."""
        records: list[Record] = []
        for kind in KINDS.values():
            records += kind.read(connection)
        self.versions = {r.id: r.version for r in records if isinstance(r, model.Accelerator)}
        return records

    def write(self, connection: Connection, changes: Mapping[Key, Record | None]) -> None:
        """Stores records and removes them. Raises LeaderLost where another scheduler has changed an
        accelerator since."""
        kept: dict[str, list[Row]] = defaultdict(list)
        removed: dict[str, list[str]] = defaultdict(list)
        number = self.requests
        for (name, key), record in changes.items():
            if record is None:
                removed[name].append(key)
                continue
            row = KINDS[name].row(record)
            if name == "Request":
                number += 1
                row |= {"key": key, "number": number}
            kept[name].append(row)
        self._write_accelerators(
            connection, kept.pop("Accelerator", []), removed.pop("Accelerator", [])
        )
        for name, keys in removed.items():
            kind = KINDS[name]
            statement = delete(kind.table).where(kind.key == bindparam("gone"))
            connection.execute(statement, [{"gone": value} for value in keys])
        for name, rows in kept.items():
            put(connection, KINDS[name].table, rows)

    def _write_accelerators(
        self, connection: Connection, kept: list[Row], removed: list[str]
    ) -> None:
        table = schema.accelerators
        was = (table.c.id == bindparam("was_id")) & (table.c.version == bindparam("was_version"))
        new = [row for row in kept if row["id"] not in self.versions]
        changed = [
            {**row, "was_id": row["id"], "was_version": self.versions[row["id"]]}
            for row in kept
            if row["id"] in self.versions
        ]
        gone = [
            {"was_id": key, "was_version": self.versions[key]}
            for key in removed
            if key in self.versions
        ]
        insert = insertion(connection, table).on_conflict_do_nothing()
        insert = insert.execution_options(preserve_rowcount=True)
        change = update(table).where(was).values({c: bindparam(c.name) for c in table.c})
        for statement, rows in ((insert, new), (change, changed), (delete(table).where(was), gone)):
            if rows and connection.execute(statement, rows).rowcount != len(rows):
                raise LeaderLost("another scheduler has changed the accelerators")

    def written(self, changes: Mapping[Key, Record | None]) -> None:
        """What `write` was given is stored."""
        for (name, key), record in changes.items():
            if isinstance(record, model.Accelerator):
                self.versions[key] = record.version
            elif name == "Accelerator":
                self.versions.pop(key, None)
            elif isinstance(record, model.Request):
                self.requests += 1


def put(connection: Connection, table: Table, rows: list[Row]) -> None:
    """Inserts rows, or replaces those with the same key."""
    if not rows:
        return
    insert = insertion(connection, table)
    keys = set(table.primary_key.columns)
    values = {c.name: insert.excluded[c.name] for c in table.c if c not in keys}
    connection.execute(insert.on_conflict_do_update(index_elements=list(keys), set_=values), rows)


def insertion(connection: Connection, table: Table) -> Any:
    """An INSERT that knows ON CONFLICT, which both dialects spell in the same way."""
    is_sqlite = connection.dialect.name == "sqlite"
    made: Insert = sqlite.insert(table) if is_sqlite else postgresql.insert(table)
    return made

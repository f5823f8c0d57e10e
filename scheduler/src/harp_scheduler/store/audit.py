"""The audit: who changed what, in a chain of hashes that shows any later change of it.

Each row carries the hash of the row before it; the pool's row carries that of the last one. Rows
are only ever appended, in the transaction of the change that they tell of.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from harp_scheduler.store.canonical import canonical
from harp_scheduler.store.database import Database
from harp_scheduler.store.errors import LeaderLost
from harp_scheduler.store.schema import audit, moment, pool

BEGINNING = "0" * 64
"""The hash before the first row."""

PAGE = 1000
"""Rows that are read at a time."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """What is to be told of one call."""

    caller: str
    """Identity (SPIFFE URI) of who called."""

    verb: str
    """What was asked, in the words of the API: `attach`, `create token`."""

    subject: str
    """What it was about: a lease's id, a server's name."""

    tenant: str = ""
    request: str = ""
    """The caller's id of the request."""

    outcome: str = "done"
    """`done`, or why it was refused."""

    before: Any = None
    """The subject as it was: a record, or anything that JSON can say. Never a secret."""

    after: Any = None


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One row of the audit."""

    sequence: int
    """From 1, without gaps."""

    time: datetime
    caller: str
    verb: str
    subject: str
    tenant: str
    request: str
    outcome: str
    before: str
    """JSON text."""

    after: str
    previous: str
    """Hash of the row before, in hexadecimal digits."""

    hash: str
    """SHA-256 of everything above."""

    def digest(self) -> str:
        """What `hash` must be."""
        said = {name: getattr(self, name) for name in ROW_FIELDS if name != "hash"}
        said |= {
            "time": moment(self.time),
            "before": json.loads(self.before),
            "after": json.loads(self.after),
        }
        return hashlib.sha256(canonical(said).encode()).hexdigest()


ROW_FIELDS = tuple(field.name for field in fields(AuditRow))


@dataclass(frozen=True, slots=True)
class Broken:
    """The first row that is not as it was written."""

    sequence: int
    cause: str


@contextmanager
def changing(
    database: Database, entries: Sequence[AuditEntry] = (), term: int | None = None
) -> Iterator[Connection]:
    """One transaction. It holds the pool's row, so that one follows the other, and ends with the
    audit of what it changed.

    Raises LeaderLost where `term` is not the pool's, StoreUnavailable."""
    row = pool.c
    with database.writing() as connection:
        now, holder, sequence, previous = connection.execute(
            select(row.term, row.holder, row.audited, row.audit_hash).with_for_update()
        ).one()
        if term is not None and term != now:
            raise LeaderLost(f"{holder} leads, in term {now}")
        yield connection
        if entries:
            _append(connection, entries, sequence, previous)


def _append(
    connection: Connection, entries: Sequence[AuditEntry], sequence: int, previous: str
) -> None:
    """Writes entries behind the row `sequence`, whose hash is `previous`."""
    time = datetime.now(UTC)
    rows = []
    for entry in entries:
        sequence += 1
        row = AuditRow(
            sequence,
            time,
            entry.caller,
            entry.verb,
            entry.subject,
            entry.tenant,
            entry.request,
            entry.outcome,
            canonical(entry.before),
            canonical(entry.after),
            previous,
            "",
        )
        previous = row.digest()
        rows.append({name: getattr(row, name) for name in ROW_FIELDS} | {"hash": previous})
    connection.execute(insert(audit), rows)
    connection.execute(update(pool).values(audited=sequence, audit_hash=previous))


def asked(connection: Connection, entry: AuditEntry) -> AuditRow | None:
    """What an earlier call of the same caller with the same request has left, if there was one."""
    same = [audit.c[name] == getattr(entry, name) for name in ("request", "caller", "verb")]
    row = connection.execute(select(audit).where(*same).limit(1)).mappings().first()
    return AuditRow(**row) if row else None


def read(database: Database, after: int = 0, **wanted: str) -> Iterator[AuditRow]:
    """The rows behind `after` whose columns have the `wanted` values, in order."""
    query = select(audit).order_by(audit.c.sequence).limit(PAGE)
    for column, value in wanted.items():
        query = query.where(audit.c[column] == value)
    while True:
        with database.reading() as connection:
            page = connection.execute(query.where(audit.c.sequence > after)).mappings().all()
        for found in page:
            yield AuditRow(**found)
        if len(page) < PAGE:
            return
        after = page[-1]["sequence"]


def verify(database: Database) -> Broken | None:
    """Follows the chain; None where it is whole. Rows may be added meanwhile."""
    with database.reading() as connection:
        last, end = connection.execute(select(pool.c.audited, pool.c.audit_hash)).one()
    expected, previous = 1, BEGINNING
    for row in read(database):
        if expected > last:
            break
        if row.sequence != expected:
            return Broken(expected, "is missing")
        if row.previous != previous:
            return Broken(row.sequence, "does not follow the row before it")
        try:
            digest = row.digest()
        except ValueError:
            digest = ""
        if row.hash != digest:
            return Broken(row.sequence, "was changed")
        expected, previous = expected + 1, row.hash
    if expected <= last:
        return Broken(expected, "is missing")
    if previous != end:
        return Broken(last, "is not the one that was written last")
    return None

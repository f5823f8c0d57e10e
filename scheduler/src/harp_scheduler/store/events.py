"""Events that outlive the scheduler that saw them: the newest of those that are out of order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from sqlalchemy import Connection, delete, func, insert, select

from harp_scheduler.store.database import Database
from harp_scheduler.store.schema import events

KEPT = 4096
"""How many."""

PRUNE = 512
"""The oldest are removed once in so many numbers, of which not all are stored."""


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened."""

    number: int
    """Grows, from one scheduler that leads to the next too."""

    time: float
    """Seconds since 1970, UTC."""

    kind: str
    """lease, server, device, tenant, profile or scheduler."""

    subject: str
    """Name or id of it."""

    name: str
    """What people call it: a lease's name."""

    what: str
    """A lease's new state, or Gone, Connected, Disconnected, Revoked, Cordoned, Ready, Faulty, Set,
    Leads."""

    reason: str = ""
    tenant: str = ""
    """Of a lease."""


def add(connection: Connection, happened: Sequence[Happening]) -> None:
    """Stores events, in the order of their numbers."""
    if not happened:
        return
    before = connection.execute(select(func.max(events.c.number))).scalar() or 0
    connection.execute(insert(events), [asdict(one) for one in happened])
    if before // PRUNE != happened[-1].number // PRUNE:
        prune(connection)


def prune(connection: Connection) -> None:
    """Removes all but the newest."""
    newest = select(events.c.number).order_by(events.c.number.desc())
    oldest = newest.offset(KEPT - 1).limit(1).scalar_subquery()
    connection.execute(delete(events).where(events.c.number < oldest))


def read(database: Database) -> list[Happening]:
    """The newest, the oldest of them first."""
    columns = [events.c[field.name] for field in fields(Happening)]
    query = select(*columns).order_by(events.c.number.desc()).limit(KEPT)
    with database.reading() as connection:
        return [Happening(*row) for row in reversed(connection.execute(query).all())]

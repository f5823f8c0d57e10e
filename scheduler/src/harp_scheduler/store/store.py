"""The durable state of a scheduler.

    store = Store.open("sqlite:///pool.db")
    while (term := store.lead("scheduler1:7400")) is None:
        ...                                     # another one leads: try again a little later
    records, numbers = store.load()
    store.commit(term, changes, numbers, audit)

Synchronous, for one thread; from others only `leads` may be read, and `audit`, `verify_audit` and
`usage` be called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import select, update

from harp_scheduler.core.book import Key, Number, Record
from harp_scheduler.store import archive, events, schema
from harp_scheduler.store import audit as audits
from harp_scheduler.store import usage as usages
from harp_scheduler.store.audit import AuditEntry, AuditRow, Broken, changing
from harp_scheduler.store.database import Database
from harp_scheduler.store.errors import LeaderLost, StoreUnavailable
from harp_scheduler.store.events import Happening
from harp_scheduler.store.identities import Identities
from harp_scheduler.store.migrate import upgrade
from harp_scheduler.store.records import Shelf, put
from harp_scheduler.store.seat import Seat, seat_of
from harp_scheduler.store.usage import UsageRow


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads, or led last."""

    term: int
    """0: nobody has led yet."""

    holder: str
    since: datetime | None


class Store(Identities):
    """One scheduler's view of the pool's database."""

    def __init__(self, database: Database, seat: Seat) -> None:
        """For a database that has this version's schema; `open` sees to that."""
        super().__init__(database)
        self._seat = seat
        self._term: int | None = None
        self._shelf = Shelf()

    @classmethod
    def open(cls, url: str, is_new: bool = True) -> Store:
        """Opens `sqlite:///PATH` or `postgresql://…`, and brings it to this version's schema.

        `is_new`: whether the pool may be new, and is made then. Raises WrongDatabase (not a
        database of ours, a newer one, or without the pool), StoreUnavailable."""
        database = Database(url)
        seat = seat_of(database)
        try:
            upgrade(database, seat, is_new=is_new)
        except BaseException:
            database.close()
            raise
        return cls(database, seat)

    def close(self) -> None:
        """Steps down and closes all connections."""
        self.step_down()
        self._database.close()

    @property
    def leads(self) -> bool:
        """Whether this store leads, as far as it knows."""
        return self._term is not None and self._seat.is_held

    def lead(self, holder: str, lost: Callable[[], None] = lambda: None) -> int | None:
        """Begins a new term, or returns None: another scheduler leads.

        `holder` names this scheduler to the others. `lost` is called, from a thread, when the
        connection that holds the leadership breaks. Raises StoreUnavailable."""
        self._term = None
        if not self._seat.take(lost):
            return None
        try:
            with self._database.writing() as connection:
                term: int = connection.execute(
                    update(schema.pool)
                    .values(term=schema.pool.c.term + 1, holder=holder, since=datetime.now(UTC))
                    .returning(schema.pool.c.term)
                ).scalar_one()
                self._shelf.begin(connection)
                events.prune(connection)
        except BaseException:
            self._seat.leave()
            raise
        self._term = term
        return term

    def step_down(self) -> None:
        """Lets another scheduler lead."""
        self._term = None
        self._seat.leave()

    def leader(self) -> Leader:
        """Who leads, or led last. Raises StoreUnavailable."""
        row = schema.pool.c
        with self._database.reading() as connection:
            return Leader(*connection.execute(select(row.term, row.holder, row.since)).one())

    def load(self) -> tuple[list[Record], list[Number]]:
        """Everything that is stored of the core, as of one moment; to be called after `lead`.

        Raises StoreUnavailable."""
        with self._database.reading() as connection:
            self._database.take_time(connection)
            records = self._shelf.load(connection)
            rows = connection.execute(select(schema.numbers.c.name, schema.numbers.c.value))
            return records, [Number(name, value) for name, value in rows]

    def time(self) -> float:
        """The database's clock, which all schedulers of a pool share: seconds since 1970, UTC.

        Raises StoreUnavailable."""
        return self._database.time()

    def commit(
        self,
        term: int,
        changes: Mapping[Key, Record | None],
        numbers: Sequence[Number] = (),
        audit: Sequence[AuditEntry] = (),
        usage: Sequence[UsageRow] = (),
        happened: Sequence[Happening] = (),
    ) -> None:
        """Stores all of it in one transaction, or nothing; None removes a record.

        Raises LeaderLost: another scheduler leads, or has changed an accelerator. Raises
        StoreUnavailable: it is not known whether it is stored. After either, `lead` begins anew."""
        if term != self._term:
            raise LeaderLost(f"this scheduler does not lead in term {term}")
        try:
            if not self._seat.is_held:
                raise StoreUnavailable(
                    self._database.name, "the connection that held the leadership is gone"
                )
            with changing(self._database, audit, term) as connection:
                self._shelf.write(connection, changes)
                put(connection, schema.numbers, [number._asdict() for number in numbers])
                usages.add(connection, usage)
                events.add(connection, happened)
        except BaseException:
            self._term = None
            raise
        self._shelf.written(changes)

    def record(self, entries: Sequence[AuditEntry]) -> None:
        """Appends to the audit what changed nothing here, such as a refusal. Raises
        StoreUnavailable."""
        with changing(self._database, entries):
            pass

    def audit(
        self, after: int = 0, *, caller: str = "", subject: str = "", tenant: str = ""
    ) -> Iterator[AuditRow]:
        """The audit's rows behind the number `after`, in order; of one caller, subject or tenant
        where given. Raises StoreUnavailable."""
        wanted = {"caller": caller, "subject": subject, "tenant": tenant}
        return audits.read(self._database, after, **{k: v for k, v in wanted.items() if v})

    def audited(self) -> int:
        """The number of the audit's last row. Raises StoreUnavailable."""
        with self._database.reading() as connection:
            number: int = connection.execute(select(schema.pool.c.audited)).scalar_one()
            return number

    def verify_audit(self) -> Broken | None:
        """The first row that was changed, is missing, or was put in; None where all is whole.

        Raises StoreUnavailable."""
        return audits.verify(self._database)

    def usage(self, since: datetime | None = None, tenant: str = "") -> list[UsageRow]:
        """What tenants used in the hours from `since` on. Raises StoreUnavailable."""
        return usages.read(self._database, since, tenant)

    def measured(self) -> dict[str, datetime]:
        """Until when each tenant's usage is stored. Raises StoreUnavailable."""
        return usages.measured(self._database)

    def events(self) -> list[Happening]:
        """What happened under former schedulers, the newest of what is kept. Raises
        StoreUnavailable."""
        return events.read(self._database)

    def backup(self, path: Path) -> None:
        """Writes everything, as of one moment, to an SQLite file, in place of one that is there.

        Raises NoBackup, StoreUnavailable."""
        archive.backup(self._database, path)

    def restore(self, source: Database, audit: Sequence[AuditEntry] = ()) -> None:
        """Fills this database, which must be empty, from a backup of either dialect that is
        `archive.opened`.

        Term and epoch go on far above those of the backup. Raises NoBackup, StoreUnavailable."""
        if not self._seat.take(lambda: None):
            raise archive.being_used(self._database)
        try:
            with changing(self._database) as connection:
                archive.restore(source, self._database, connection)
            self.record(audit)
        finally:
            self.step_down()

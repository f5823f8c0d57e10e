"""Backups. One is an SQLite database, whichever dialect it is of, so that it restores into both."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Connection, Table, delete, func, insert, select, update
from sqlalchemy.exc import DatabaseError

from harp_client.durable import put_in_place
from harp_scheduler.store.database import Database
from harp_scheduler.store.errors import NoBackup, StoreUnavailable
from harp_scheduler.store.migrate import copy_sqlite, upgrade
from harp_scheduler.store.schema import metadata, numbers, pool
from harp_scheduler.store.seat import seat_of

STEP = 1 << 32
"""What term and epoch are raised by: more than were ever counted since the backup was made, for the
agents may have seen all of those."""

ROWS = 5000
"""Rows that are copied at a time."""


def backup(database: Database, path: Path) -> None:
    """Writes everything to `path`, whole or not at all. Raises NoBackup, StoreUnavailable."""
    if database.path is not None:
        copy_sqlite(database, path)
        return
    with tempfile.TemporaryDirectory(dir=_folder(path), prefix=".backup-") as folder:
        partial = Path(folder, "backup.db")
        copy = Database(f"sqlite:///{partial}")
        try:
            upgrade(copy, seat_of(copy))
            with database.reading() as source, copy.writing() as target:
                database.take_time(source)
                for table in (pool, numbers):
                    target.execute(delete(table))
                _copy(source, target)
        finally:
            copy.close()
        with closing(sqlite3.connect(partial)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
        put_in_place(partial, path)


def _folder(path: Path) -> Path:
    folder = path.absolute().parent
    if not folder.is_dir():
        raise NoBackup(f"there is no folder {folder} for a backup", "make it, or choose another")
    return folder


@contextmanager
def opened(path: Path) -> Iterator[Database]:
    """A backup, brought to this version's schema in a copy of it.

    Raises NoBackup, and WrongDatabase where a newer version has made it."""
    if not path.is_file():
        raise NoBackup(f"there is no backup {path}", "name the file that harp backup wrote")
    with tempfile.TemporaryDirectory(prefix="harp-restore-") as folder:
        database = Database(f"sqlite:///{folder}/backup.db")
        assert database.path is not None
        database.name = str(path)
        database.make_file()
        shutil.copyfile(path, database.path)
        try:
            _check(database)
            upgrade(database, seat_of(database))
            yield database
        finally:
            database.close()


def _check(database: Database) -> None:
    """Raises NoBackup for a file that holds no pool."""
    try:
        with database.reading() as connection:
            found = connection.execute(select(pool.c.term)).scalar()
    except (DatabaseError, StoreUnavailable):
        found = None
    if found is None:
        raise NoBackup(
            f"{database.name} is not a backup of a pool", "name the file that harp backup wrote"
        )


def restore(source: Database, target: Database, connection: Connection) -> None:
    """Copies everything into an empty database, in the transaction of `connection`.

    Raises NoBackup where it is not empty: what was granted and audited there is not thrown away."""
    target.take_time(connection)
    for table in metadata.sorted_tables:
        if table not in (pool, numbers) and _count(connection, table):
            raise NoBackup(
                f"the database {target.name} is not empty", "restore into a new one: --database"
            )
    before = _counters(connection)
    for table in (pool, numbers):
        connection.execute(delete(table))
    with source.reading() as rows:
        _copy(rows, connection)
    term, epoch = (max(pair) + STEP for pair in zip(before, _counters(connection), strict=True))
    connection.execute(update(pool).values(term=term, holder="", since=None))
    connection.execute(delete(numbers).where(numbers.c.name == "epoch"))
    connection.execute(insert(numbers).values(name="epoch", value=epoch))


def being_used(database: Database) -> NoBackup:
    """What to raise where somebody leads on a database that is to be filled."""
    return NoBackup(f"a scheduler leads on {database.name}", "stop it: harp restore goes first")


def _counters(connection: Connection) -> tuple[int, int]:
    """Term and epoch."""
    term = connection.execute(select(pool.c.term)).scalar_one()
    epoch = connection.execute(select(numbers.c.value).where(numbers.c.name == "epoch")).scalar()
    return term, epoch or 0


def _count(connection: Connection, table: Table) -> int:
    count: int = connection.execute(select(func.count()).select_from(table)).scalar_one()
    return count


def _copy(source: Connection, target: Connection) -> None:
    """All rows of all tables, of which the target has none."""
    for table in metadata.sorted_tables:
        rows = source.execution_options(yield_per=ROWS).execute(select(table)).mappings()
        for part in rows.partitions(ROWS):
            target.execute(insert(table), [dict(row) for row in part])

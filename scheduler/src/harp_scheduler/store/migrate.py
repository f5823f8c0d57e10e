"""Brings a database to this version's schema, or refuses one that a newer version has written."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from harp_client.durable import put_in_place
from harp_scheduler.store.database import Database
from harp_scheduler.store.errors import NoBackup, WrongDatabase
from harp_scheduler.store.seat import Seat

SCRIPTS = Path(__file__).parent / "migrations"
PATIENCE = 30.0
"""Seconds that an upgrade waits for the scheduler that leads to stop."""


def upgrade(
    database: Database, seat: Seat, patience: float = PATIENCE, is_new: bool = True
) -> None:
    """Upgrades, in one transaction, while nobody leads; an SQLite file is copied before.

    `is_new`: whether the pool may be new, and is made then. Raises WrongDatabase where the database
    is newer than this version, where another scheduler leads on the older schema, or where there
    is no pool that had to be there."""
    head, known = revisions()
    if is_new:
        database.make_file()
    deadline = time.monotonic() + patience
    while (now := None if database.is_missing else revision(database)) != head:
        if now is None and not is_new:
            raise WrongDatabase(
                f"there is no pool in {database.path or database.name}",
                "--state DIR, or --database URL",
                3,
            )
        if now is not None and now not in known:
            raise WrongDatabase(
                f"the database {database.name} has revision {now} of a newer version; "
                f"this one knows {head}",
                "start the newer version, or restore a backup into a new database",
            )
        if seat.take(lambda: None):
            try:
                # Whoever had the seat may have done it.
                if revision(database) == now:
                    _upgrade(database, now)
            finally:
                seat.leave()
        elif time.monotonic() > deadline:
            raise WrongDatabase(
                f"another scheduler leads on {database.name}, of revision {now}; "
                f"this version needs {head}",
                "stop the schedulers of the older version first",
            )
        else:
            time.sleep(0.05)


def configuration() -> Config:
    """Where alembic finds the migrations."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    return config


def revisions() -> tuple[str | None, set[str]]:
    """The schema of this version, and all that it can bring to that."""
    scripts = ScriptDirectory.from_config(configuration())
    return scripts.get_current_head(), {script.revision for script in scripts.walk_revisions()}


def revision(database: Database) -> str | None:
    """The schema that a database has; None: none yet."""
    with database.reading() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def _upgrade(database: Database, now: str | None) -> None:
    if database.path is not None:
        if now is not None:
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
            copy_sqlite(
                database, database.path.with_name(f"{database.path.name}.{now}.{stamp}.backup")
            )
        with database.reaching(), database.engine.connect() as connection:
            raw = connection.connection.dbapi_connection
            assert isinstance(raw, sqlite3.Connection)
            raw.rollback()
            raw.execute("PRAGMA journal_mode=WAL")
    with database.writing() as connection:
        database.take_time(connection)
        config = configuration()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def copy_sqlite(database: Database, target: Path) -> None:
    """A consistent copy of an SQLite database as one file, whole or not there at all. Raises
    NoBackup."""
    partial = target.with_name(f"{target.name}.partial")
    try:
        os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
        with (
            closing(sqlite3.connect(str(database.path))) as source,
            closing(sqlite3.connect(partial)) as copy,
        ):
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
        put_in_place(partial, target)
    except (OSError, sqlite3.Error) as error:
        partial.unlink(missing_ok=True)
        raise NoBackup(
            f"{database.name} cannot be copied to {target}: {error}", "choose another place"
        ) from None

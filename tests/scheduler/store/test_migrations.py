"""Databases of other versions: older ones are upgraded, newer ones refused."""

from __future__ import annotations

import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from harp_scheduler.store import migrate
from harp_scheduler.store.database import Database
from harp_scheduler.store.errors import StoreUnavailable, WrongDatabase
from harp_scheduler.store.migrate import upgrade
from harp_scheduler.store.schema import metadata
from harp_scheduler.store.seat import seat_of
from harp_scheduler.store.store import Store
from scheduler.store.samples import POOL, changes, key_of

Open = Callable[[str], Store]
FIRST = Path(__file__).with_name("first.sql")


def as_first_version(url: str) -> Database:
    """A database as the first revision left it, with a row in each table."""
    database = Database(url)
    database.make_file()
    with database.writing() as connection:
        config = migrate.configuration()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for statement in FIRST.read_text().splitlines():
            connection.exec_driver_sql(statement)
    return database


def test_the_first_version_is_upgraded_with_all_it_holds(
    url: str, dialect: str, open_store: Open
) -> None:
    database = as_first_version(url)
    store = open_store(url)
    records, numbers = store.load()
    assert {key_of(record): record for record in records} == changes(*POOL)
    assert sorted(numbers) == [("epoch", 5), ("order", 1)]
    assert store.leader().holder == "scheduler1"
    assert store.lead("new") == 42
    assert store.verify_audit() is None
    assert store.tokens() == []
    if dialect == "sqlite":
        assert database.path is not None
        (backup,) = database.path.parent.glob("pool0.db.0001.*.backup")
        copy = Database(f"sqlite:///{backup}")
        assert migrate.revision(copy) == "0001"
        copy.close()
        assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    database.close()


def test_migrations_make_exactly_this_schema(url: str, open_store: Open) -> None:
    open_store(url)
    database = Database(url)
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    database.close()


def test_a_newer_database_is_refused_with_both_revisions(url: str, open_store: Open) -> None:
    store = open_store(url)
    database = Database(url)
    head = migrate.revision(database)
    with database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'f00d'"))
    database.close()
    with pytest.raises(WrongDatabase, match=f"revision f00d of a newer version.*knows {head}"):
        Store.open(url)
    assert store.leader().term == 0, "it was not touched"


def test_nothing_is_upgraded_under_a_leader_of_the_older_version(
    url: str, open_store: Open
) -> None:
    database = as_first_version(url)
    old, new = seat_of(database), seat_of(database)
    assert old.take(lambda: None)
    with pytest.raises(WrongDatabase, match="another scheduler leads"):
        upgrade(database, new, patience=0.2)
    assert migrate.revision(database) == "0001"
    old.leave()
    upgrade(database, new)
    assert open_store(url).leader().term == 41
    database.close()


def test_many_that_open_a_new_database_at_once_all_succeed(url: str, open_store: Open) -> None:
    with ThreadPoolExecutor(5) as threads:
        stores = list(threads.map(lambda _: open_store(url), range(5)))
    assert [store.leader().term for store in stores] == [0] * 5


def test_an_sqlite_database_waits_for_the_disk_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "pool.db"
    store = Store.open(f"sqlite:///{path}")
    database = Database(f"sqlite:///{path}")
    with database.reading() as connection:
        pragmas = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous")
        ]
    assert pragmas == ["wal", 2]
    store.lead("test")
    assert {stat.S_IMODE(found.stat().st_mode) for found in tmp_path.iterdir()} == {0o600}
    database.close()
    store.close()


@pytest.mark.parametrize(
    ("url", "refusal", "said"),
    [
        ("pool.db", WrongDatabase, "not the URL of a database"),
        ("sqlite://", WrongDatabase, "cannot be kept"),
        ("mysql://host/pool", WrongDatabase, "cannot be kept in mysql"),
        ("sqlite:////nowhere/at/all/pool.db", StoreUnavailable, "No such file"),
        ("postgresql://a:secret@127.0.0.1:1/x", StoreUnavailable, "a:\\*\\*\\*@.*refused"),
    ],
)
def test_what_cannot_be_opened_says_why(url: str, refusal: type[Exception], said: str) -> None:
    with pytest.raises(refusal, match=said):
        Store.open(url)

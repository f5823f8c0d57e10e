"""A backup of either dialect restores into either, and no number goes back."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from harp_scheduler.core.book import Number
from harp_scheduler.store import archive
from harp_scheduler.store.audit import AuditEntry
from harp_scheduler.store.database import Database
from harp_scheduler.store.errors import NoBackup, StoreUnavailable, WrongDatabase
from harp_scheduler.store.store import Store
from scheduler.store.samples import POOL, changes, key_of

Open = Callable[[str], Store]
NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


def restore(store: Store, backup: Path, audit: Sequence[AuditEntry] = ()) -> None:
    with archive.opened(backup) as source:
        store.restore(source, audit)


@pytest.fixture
def filled(store: Store) -> Store:
    """A store with something in every table."""
    term = store.lead("test")
    assert term is not None
    entries = [AuditEntry("admin", "test", f"{number}\0") for number in range(5)]
    store.commit(term, changes(*POOL), [Number("epoch", 5), Number("order", 1)], entries)
    store.bind_role("alice", "admin")
    store.record_certificate("01", "server/gpu1", NOW)
    store.step_down()
    return store


@pytest.mark.parametrize("into", ["sqlite", "postgresql"])
def test_everything_is_restored_and_numbers_go_on(
    into: str,
    filled: Store,
    tmp_path: Path,
    new_database: Callable[[str], str],
    open_store: Open,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(archive, "ROWS", 2)
    token, secret = filled.create_token(
        "host", expires=NOW + timedelta(hours=1), now=NOW, creator="admin"
    )
    backup = tmp_path / "backup.db"
    filled.backup(backup)
    term = filled.lead("later")
    assert term is not None
    filled.load()
    filled.commit(term, dict.fromkeys(changes(*POOL)))

    restored = open_store(new_database(into))
    restore(restored, backup, [AuditEntry("admin", "restore", "pool")])
    records, numbers = restored.load()
    assert {key_of(record): record for record in records} == changes(*POOL)
    assert sorted(numbers) == [("epoch", 5 + archive.STEP), ("order", 1)]
    assert [row.subject for row in restored.audit()] == [*(f"{n}\0" for n in range(5)), "pool"]
    assert restored.verify_audit() is None
    assert restored.take_token(token.id, secret, NOW) == token
    assert restored.roles() == filled.roles()
    assert restored.certificates() == filled.certificates()
    assert not restored.leads
    new_term = restored.lead("new")
    assert new_term is not None
    assert new_term > term + archive.STEP / 2
    restored.load()
    restored.commit(new_term, changes(*POOL), [Number("epoch", 6 + archive.STEP)])


def test_numbers_go_on_from_the_higher_of_both(
    filled: Store, url: str, tmp_path: Path, new_database: Callable[[str], str], open_store: Open
) -> None:
    filled.backup(tmp_path / "backup.db")
    target = open_store(new_database("sqlite"))
    for _ in range(9):
        target.step_down()
        term = target.lead("test")
    assert term == 9
    target.commit(9, {}, [Number("epoch", 1000)])
    target.step_down()
    restore(target, tmp_path / "backup.db")
    assert target.leader().term == 9 + archive.STEP
    assert dict(target.load()[1])["epoch"] == 1000 + archive.STEP


def test_a_backup_is_one_private_file_that_replaces_the_last_one(
    filled: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    for _ in range(2):
        filled.backup(folder / "backup.db")
    (backup,) = folder.iterdir()
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    with closing(sqlite3.connect(backup)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with pytest.raises(NoBackup):
        filled.backup(folder / "none" / "backup.db")


def test_no_pool_is_made_where_there_has_to_be_one(url: str, tmp_path: Path, filled: Store) -> None:
    Store.open(url, is_new=False).close()
    with pytest.raises(WrongDatabase, match="there is no pool in"):
        Store.open(f"sqlite:///{tmp_path}/typo.db", is_new=False)
    assert not list(tmp_path.glob("typo*"))


def test_an_empty_database_is_no_pool(dialect: str, new_database: Callable[[str], str]) -> None:
    url = new_database(dialect)
    Database(url).make_file()
    with pytest.raises(WrongDatabase, match="there is no pool in"):
        Store.open(url, is_new=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_root_restores_is_the_services_whose_the_folder_is(
    filled: Store, tmp_path: Path, open_store: Open
) -> None:
    filled.backup(tmp_path / "backup.db")
    folder, owner = tmp_path / "state", 60_000
    folder.mkdir()
    os.chown(folder, owner, owner)
    restored = open_store(f"sqlite:///{folder}/pool.db")
    restore(restored, tmp_path / "backup.db")
    restored.load()
    assert {path.stat().st_uid for path in folder.iterdir()} == {owner}
    (folder / "other.db").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailable):
        Store.open(f"sqlite:///{folder}/other.db")
    assert not (tmp_path / "elsewhere").exists()


def test_only_an_empty_database_is_restored_into(
    filled: Store, tmp_path: Path, new_database: Callable[[str], str], open_store: Open
) -> None:
    backup = tmp_path / "backup.db"
    filled.backup(backup)
    before = filled.leader()
    with pytest.raises(NoBackup, match="is not empty"):
        restore(filled, backup)
    assert filled.leader() == before
    assert {key_of(record) for record in filled.load()[0]} == set(changes(*POOL))

    used = new_database("sqlite")
    leader = open_store(used)
    leader.lead("test")
    with pytest.raises(NoBackup, match="a scheduler leads"):
        restore(open_store(used), backup)


def test_what_is_no_backup_is_refused(store: Store, filled: Store, tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    with pytest.raises(NoBackup, match="there is no backup"):
        restore(store, backup)
    backup.write_text("not a database, whatever it is called" * 100)
    with pytest.raises(NoBackup, match="is not a backup"):
        restore(store, backup)
    backup.unlink()
    with closing(sqlite3.connect(backup)) as connection:
        connection.execute("CREATE TABLE pool (term INTEGER)")
    with pytest.raises(NoBackup, match="is not a backup"):
        restore(store, backup)
    filled.backup(backup)
    with closing(sqlite3.connect(backup)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'f00d'")
        connection.commit()
    with pytest.raises(WrongDatabase, match=r"backup\.db has revision f00d of a newer"):
        restore(store, backup)

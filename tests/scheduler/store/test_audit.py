"""The audit tells every change, and shows whoever changes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import delete, text, update
from sqlalchemy.exc import DBAPIError

from harp_scheduler.core.model import Tenant
from harp_scheduler.store import audit as module
from harp_scheduler.store.audit import AuditEntry, AuditRow
from harp_scheduler.store.database import Database
from harp_scheduler.store.errors import LeaderLost
from harp_scheduler.store.schema import audit, pool
from harp_scheduler.store.store import Store
from scheduler.store.samples import DEVICE, changes

ALICE = "spiffe://lab/tenant/research/user/alice"


def entry(number: int) -> AuditEntry:
    return AuditEntry(
        ALICE,
        "attach",
        f"lease-{number}",
        "research" if number % 2 else "",
        f"request {number}",
        "done" if number % 3 else "no capacity: \0 ü \ufdd0",
        None,
        {"number": number, "device": replace(DEVICE, version=number)},
    )


@pytest.fixture
def written(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with ten rows, read in several pages."""
    monkeypatch.setattr(module, "PAGE", 3)
    term = store.lead("test")
    assert term is not None
    store.commit(term, changes(Tenant("one")), audit=[entry(n) for n in range(1, 5)])
    store.commit(term, changes(Tenant("two")))
    store.record([entry(5)])
    store.commit(term, {}, audit=[entry(n) for n in range(6, 11)])
    return store


def tamper(url: str, *statements: object) -> None:
    """As somebody does who may do anything with the database."""
    database = Database(url)
    with database.writing() as connection:
        if database.is_postgresql:
            connection.execute(text("ALTER TABLE audit DISABLE TRIGGER USER"))
        else:
            for what in ("update", "delete"):
                connection.execute(text(f"DROP TRIGGER audit_no_{what}"))
        for statement in statements:
            connection.execute(statement)  # type: ignore[call-overload]
    database.close()


def test_rows_come_back_in_order(written: Store) -> None:
    rows = list(written.audit())
    assert [row.sequence for row in rows] == list(range(1, 11))
    assert [row.subject for row in rows] == [f"lease-{n}" for n in range(1, 11)]
    third = rows[2]
    assert (third.caller, third.verb, third.tenant) == (ALICE, "attach", "research")
    assert third.outcome == "no capacity: \0 ü \ufdd0"
    assert json.loads(third.before) is None
    assert json.loads(third.after)["device"]["memory"] == DEVICE.memory
    assert third.time.tzinfo is not None
    assert [row.sequence for row in written.audit(7)] == [8, 9, 10]
    assert [row.sequence for row in written.audit(tenant="research")] == [1, 3, 5, 7, 9]
    assert [row.sequence for row in written.audit(3, subject="lease-4")] == [4]
    assert written.verify_audit() is None


def test_what_is_not_stored_is_not_told(written: Store) -> None:
    with pytest.raises(LeaderLost):
        written.commit(0, changes(Tenant("three")), audit=[entry(11)])
    assert len(list(written.audit())) == 10


def test_a_row_is_the_same_for_everybody(written: Store) -> None:
    """The hash can be computed from the row alone, by whoever knows the rule."""
    row = next(written.audit())
    again = AuditRow(**{name: getattr(row, name) for name in module.ROW_FIELDS})
    assert again.digest() == row.hash
    for field in ("caller", "verb", "subject", "tenant", "request", "outcome", "previous"):
        assert replace(row, **{field: "else"}).digest() != row.hash, field
    assert replace(row, sequence=2).digest() != row.hash
    assert replace(row, before="{}").digest() != row.hash
    assert replace(row, time=row.time.replace(year=2000)).digest() != row.hash


@pytest.mark.parametrize("statement", [update(audit).values(outcome="done"), delete(audit)])
def test_the_database_itself_refuses_changes(statement: object, written: Store, url: str) -> None:
    database = Database(url)
    with pytest.raises(DBAPIError, match="never changed"), database.writing() as connection:
        connection.execute(statement)  # type: ignore[call-overload]
    database.close()
    assert written.verify_audit() is None


HASHED = update(audit).where(audit.c.sequence == 4)


@pytest.mark.parametrize(
    ("statements", "sequence", "cause"),
    [
        ([HASHED.values(outcome="else")], 4, "changed"),
        ([HASHED.values(after="{")], 4, "changed"),
        ([HASHED.values(hash="0" * 64)], 4, "changed"),
        ([delete(audit).where(audit.c.sequence == 1)], 1, "missing"),
        ([delete(audit).where(audit.c.sequence == 4)], 4, "missing"),
        ([delete(audit).where(audit.c.sequence == 10)], 10, "missing"),
        ([delete(audit)], 1, "missing"),
        ([delete(audit).where(audit.c.sequence > 8), update(pool).values(audited=8)], 8, "last"),
    ],
)
def test_the_first_broken_row_is_named(
    statements: list[object], sequence: int, cause: str, written: Store, url: str
) -> None:
    tamper(url, *statements)
    broken = written.verify_audit()
    assert broken is not None
    assert broken.sequence == sequence
    assert cause in broken.cause


def test_a_row_that_was_rewritten_with_a_fitting_hash_breaks_the_next_one(
    written: Store, url: str
) -> None:
    row = next(written.audit(3))
    forged = replace(row, outcome="else")
    tamper(url, HASHED.values(outcome="else", hash=forged.digest()))
    broken = written.verify_audit()
    assert broken is not None
    assert (broken.sequence, broken.cause) == (5, "does not follow the row before it")


def test_rows_of_several_writers_are_one_chain(
    url: str, open_store: Callable[[str], Store]
) -> None:
    """Tokens are taken and calls refused beside the leader's commits."""
    stores = [open_store(url) for _ in range(4)]

    def write(store: Store) -> None:
        for number in range(10):
            store.record([entry(number)])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, stores))
    assert len(list(stores[0].audit())) == 40
    assert stores[0].verify_audit() is None

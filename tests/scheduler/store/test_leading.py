"""One scheduler leads: races, deaths, and leaders that do not know yet that they lead no more."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import psycopg
import pytest
from sqlalchemy import Executable, delete, insert, update

from harp_scheduler.core.book import Number, Record
from harp_scheduler.core.model import Tenant
from harp_scheduler.store.database import Database
from harp_scheduler.store.errors import LeaderLost, StoreUnavailable
from harp_scheduler.store.records import KINDS
from harp_scheduler.store.schema import accelerators
from harp_scheduler.store.seat import answers
from harp_scheduler.store.store import Store
from scheduler.store.postgres import Postgres
from scheduler.store.samples import DEVICE, changes
from scheduler.store.seats import OpenSeat

Open = Callable[[str], Store]
BOUND = 60.0

LEADER = """
import sys, time
from harp_scheduler.store.store import Store
store = Store.open(sys.argv[1])
print(store.lead("child"), flush=True)
time.sleep(600)
"""


@contextmanager
def leading_process(url: str) -> Iterator[subprocess.Popen[str]]:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", LEADER, url], stdout=subprocess.PIPE, text=True, env=environ
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "1\n"
            yield process
        finally:
            process.kill()


def lead_soon(store: Store) -> int:
    """Tries to lead, as a standby does, until it does."""
    deadline = time.monotonic() + BOUND
    while (term := store.lead("standby")) is None:
        assert time.monotonic() < deadline, "the seat does not become free"
        time.sleep(0.05)
    return term


def soon(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + BOUND
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_one_leads_and_the_next_term_is_higher(url: str, open_store: Open) -> None:
    one, two = open_store(url), open_store(url)
    assert one.leader().term == 0
    assert one.lead("one") == 1
    assert two.lead("two") is None
    assert (one.leads, two.leads) == (True, False)
    leader = two.leader()
    assert (leader.term, leader.holder) == (1, "one")
    one.step_down()
    assert not one.leads
    assert two.lead("two") == 2
    assert one.leader().holder == "two"


def test_of_many_that_race_one_leads(url: str, open_store: Open) -> None:
    stores = [open_store(url) for _ in range(6)]
    barrier = threading.Barrier(len(stores))

    def race(store: Store) -> int | None:
        barrier.wait()
        return store.lead("racer")

    with ThreadPoolExecutor(len(stores)) as threads:
        terms = list(threads.map(race, stores))
    assert sorted(terms, key=str) == [1] + [None] * (len(stores) - 1)


def test_a_killed_leader_frees_the_seat(url: str, open_store: Open) -> None:
    store = open_store(url)
    with leading_process(url) as leader:
        assert store.lead("standby") is None
        leader.kill()
        assert lead_soon(store) == 2


def test_a_leader_that_stands_still_loses_the_seat(postgres: Postgres, open_store: Open) -> None:
    url = postgres.new_database()
    store = open_store(url)
    with leading_process(url) as leader:
        leader.send_signal(signal.SIGSTOP)
        assert lead_soon(store) == 2


def test_an_old_leader_writes_nothing(url: str, open_store: Open) -> None:
    open_store(url)
    old, new = (Store(Database(url), OpenSeat()) for _ in range(2))
    first = old.lead("old")
    assert first is not None
    old.commit(first, changes(Tenant("one")))
    second = new.lead("new")
    assert second == first + 1
    with pytest.raises(LeaderLost, match="new leads, in term 2"):
        old.commit(first, changes(Tenant("two")), [Number("epoch", 9)])
    with pytest.raises(LeaderLost):
        old.commit(second, changes(Tenant("two")))
    assert new.load() == ([Tenant("one")], [])
    new.commit(second, changes(Tenant("three")))
    old.close()
    new.close()


@pytest.mark.parametrize(
    ("before", "statement", "wish"),
    [
        (True, update(accelerators).values(version=1), replace(DEVICE, version=1)),
        (True, delete(accelerators), replace(DEVICE, version=1)),
        (True, update(accelerators).values(version=1), None),
        (False, insert(accelerators).values(**KINDS["Accelerator"].row(DEVICE)), DEVICE),
    ],
    ids=["changed", "removed", "changed before it is removed", "made"],
)
def test_a_grant_on_a_device_that_another_one_changed_is_refused(
    before: bool, statement: Executable, wish: Record | None, store: Store, url: str
) -> None:
    """Beside the term: whatever wrote the row, the grant was decided on another one."""
    term = store.lead("test")
    assert term is not None
    if before:
        store.commit(term, changes(DEVICE))
    store.load()
    database = Database(url)
    with database.writing() as connection:
        connection.execute(statement)
    database.close()
    with pytest.raises(LeaderLost, match="changed the accelerators"):
        store.commit(term, {("Accelerator", DEVICE.id): wish, **changes(Tenant("one"))})
    assert not store.leads
    records, _ = store.load()
    assert Tenant("one") not in records, "nothing of it is stored"


def test_versions_go_on_from_what_was_written(store: Store) -> None:
    term = store.lead("test")
    assert term is not None
    for version in (0, 1, 2):
        store.commit(term, changes(replace(DEVICE, version=version)))
    store.commit(term, dict.fromkeys(changes(DEVICE)))
    store.commit(term, dict.fromkeys(changes(DEVICE)))
    store.commit(term, changes(DEVICE))
    assert store.load()[0] == [DEVICE]


def test_a_store_that_does_not_lead_writes_nothing(store: Store) -> None:
    with pytest.raises(LeaderLost):
        store.commit(0, changes(DEVICE))
    term = store.lead("test")
    assert term is not None
    store.step_down()
    with pytest.raises(LeaderLost):
        store.commit(term, changes(DEVICE))
    assert store.load() == ([], [])


def test_a_restart_of_postgresql_ends_the_leadership_and_nothing_else(
    postgres: Postgres, open_store: Open
) -> None:
    store = open_store(postgres.new_database())
    lost = threading.Event()
    term = store.lead("test", lost.set)
    assert term is not None
    store.commit(term, changes(DEVICE))
    postgres.stop()
    try:
        assert lost.wait(BOUND), "the broken connection is not noticed"
        assert not store.leads
        with pytest.raises(StoreUnavailable, match="cannot be used"):
            store.commit(term, changes(Tenant("one")))
        with pytest.raises(StoreUnavailable):
            store.lead("test")
        with pytest.raises(StoreUnavailable):
            store.load()
    finally:
        postgres.start()
    assert store.lead("test") == term + 1
    assert store.load()[0] == [DEVICE]
    store.commit(term + 1, changes(Tenant("two")))


def test_a_commit_during_the_restart_is_told_so(postgres: Postgres, open_store: Open) -> None:
    """Not by the seat's thread, which may not have noticed yet: by the transaction itself."""
    url = postgres.new_database()
    open_store(url)
    store = Store(Database(url), OpenSeat())
    term = store.lead("test")
    assert term is not None
    postgres.stop()
    try:
        with pytest.raises(StoreUnavailable):
            store.commit(term, changes(DEVICE))
    finally:
        postgres.start()
    with pytest.raises(LeaderLost):
        store.commit(term, changes(DEVICE))
    assert store.lead("test") == term + 1
    store.commit(term + 1, changes(DEVICE))
    assert store.load()[0] == [DEVICE]
    store.close()


def holder_of_the_seat(url: str) -> int:
    """The process of the server that serves the connection that holds a schema's seat."""
    query = (
        "SELECT pid FROM pg_locks"
        " WHERE locktype = 'advisory' AND objid = hashtext(current_schema())::oid"
    )
    with psycopg.connect(url) as connection:
        ((pid,),) = connection.execute(query).fetchall()
    return int(pid)


def test_a_server_that_does_not_answer_counts_as_gone(postgres: Postgres, open_store: Open) -> None:
    """As behind a network that is cut: nothing closes the connection, nothing comes."""
    url = postgres.new_database()
    store = open_store(url)
    lost = threading.Event()
    term = store.lead("test", lost.set)
    assert term is not None
    silent = holder_of_the_seat(url)
    os.kill(silent, signal.SIGSTOP)
    try:
        assert lost.wait(BOUND)
        assert not store.leads
        with pytest.raises(StoreUnavailable, match="held the leadership"):
            store.commit(term, changes(DEVICE))
        assert store.lead("test") is None, "the server still keeps the lock"
    finally:
        os.kill(silent, signal.SIGCONT)
    assert lead_soon(store) == term + 1


def test_a_lost_seat_is_told_and_can_be_taken_again(postgres: Postgres, open_store: Open) -> None:
    url = postgres.new_database()
    store, standby = open_store(url), open_store(url)
    lost = threading.Event()
    term = store.lead("test", lost.set)
    assert term is not None
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s)", (holder_of_the_seat(url),))
    assert lost.wait(BOUND)
    with pytest.raises(StoreUnavailable, match="held the leadership"):
        store.commit(term, changes(DEVICE))
    assert standby.lead("standby") == term + 1
    assert store.lead("test") is None
    standby.step_down()
    assert soon(lambda: store.lead("test") is not None)


def test_the_databases_clock_is_the_time_of_the_day(store: Store) -> None:
    # In UTC, whatever the zone of the database: zones differ by a quarter of an hour at least.
    assert abs(store.time() - time.time()) < 900


class Session:
    """As much of libpq's connection as `answers` asks for: a pipe, which is readable."""

    def __init__(self, socket: int) -> None:
        self.socket = socket
        self.is_asked = False

    def send_query(self, _: bytes) -> None:
        self.is_asked = True

    def is_busy(self) -> bool:
        return self.is_asked

    def consume_input(self) -> None:
        self.is_asked = not os.read(self.socket, 1)

    def get_result(self) -> None:
        return None


def test_a_connection_with_a_high_descriptor_is_heard() -> None:
    _, most = limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 4096), most))
    receiver, sender = os.pipe()
    high = fcntl.fcntl(receiver, fcntl.F_DUPFD_CLOEXEC, 2000)
    try:
        os.write(sender, b"x")
        connection = SimpleNamespace(pgconn=Session(high))
        assert answers(connection, BOUND)  # type: ignore[arg-type]
    finally:
        for descriptor in (receiver, sender, high):
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

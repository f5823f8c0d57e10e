"""The seat of the leader: a lock that one scheduler at most holds, and that its death frees.

The lock decides who tries; that nobody else writes is decided by the term, in every transaction.
"""

from __future__ import annotations

import fcntl
import os
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harp_client.durable import open_private
from harp_scheduler.store.database import Database, first_line
from harp_scheduler.store.errors import StoreUnavailable

if TYPE_CHECKING:
    import psycopg

PULSE = 0.25
"""Seconds between looks at the connection that holds the lock: a closed one is found by then."""

SILENCE = 3.0
"""Seconds without an answer after which the lock counts as lost."""

IDLE = 5.0
"""Seconds of silence after which PostgreSQL ends the session and frees the lock: more than PULSE
and SILENCE together, so that a leader knows that it leads no more before another one can."""

LOCK_CLASS = int.from_bytes(b"HARP", "big")
"""First half of the advisory lock's key; the second is the schema's, so that pools can share a
database."""


class Seat(Protocol):
    """A lock for one scheduler."""

    @property
    def is_held(self) -> bool:
        """Whether it was taken here, and has been neither left nor lost since."""

    def take(self, lost: Callable[[], None]) -> bool:
        """Takes it, or says that another one has it. `lost` is called when it is lost later, from
        a thread that has nothing else to do but must come back. Raises StoreUnavailable."""

    def leave(self) -> None:
        """Gives it back, where it is held."""


class FileSeat:
    """A lock on a file beside an SQLite database; the kernel frees it with the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1

    @property
    def is_held(self) -> bool:
        return self._file >= 0

    def take(self, lost: Callable[[], None]) -> bool:
        del lost  # a living process does not lose it
        if self.is_held:
            return True
        try:
            file = open_private(self._path)
        except OSError as error:
            raise StoreUnavailable(str(self._path), error.strerror or str(error)) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._file = file
        return True

    def leave(self) -> None:
        if self.is_held:
            os.close(self._file)
            self._file = -1


class PostgresSeat:
    """An advisory lock on a connection of its own, which a thread asks for signs of life."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: psycopg.Connection[Any] | None = None
        self._held = threading.Event()
        self._leaving = threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def is_held(self) -> bool:
        return self._held.is_set()

    def take(self, lost: Callable[[], None]) -> bool:
        if self.is_held:
            return True
        self.leave()
        import psycopg

        try:
            self._connection = self._connect()
            (taken,) = self._connection.execute(
                "SELECT pg_try_advisory_lock(%s, hashtext(current_schema()))", (LOCK_CLASS,)
            ).fetchone() or (False,)
            if taken:
                self._connection.execute(f"SET idle_session_timeout = '{IDLE:.0f}s'")
        except psycopg.Error as error:
            self._close()
            raise StoreUnavailable(self._database.name, first_line(error)) from error
        if not taken:
            self._close()
            return False
        self._leaving.clear()
        self._held.set()
        self._watcher = threading.Thread(
            target=self._watch, args=(self._connection, lost), name="leadership", daemon=True
        )
        self._watcher.start()
        return True

    def _connect(self) -> psycopg.Connection[Any]:
        import psycopg

        _, given = self._database.engine.dialect.create_connect_args(self._database.url)
        return psycopg.connect(**{**given, **self._database.arguments}, autocommit=True)

    def _watch(self, connection: psycopg.Connection[Any], lost: Callable[[], None]) -> None:
        while not self._leaving.wait(PULSE):
            if not answers(connection, SILENCE):
                self._held.clear()
                lost()
                return

    def leave(self) -> None:
        self._held.clear()
        self._leaving.set()
        if self._watcher is not None and self._watcher is not threading.current_thread():
            self._watcher.join()
            self._watcher = None
        if self._connection is not None:
            # A closed connection frees it too, but only when the server has noticed.
            answers(self._connection, SILENCE, b"SELECT pg_advisory_unlock_all()")
            self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def answers(
    connection: psycopg.Connection[Any], seconds: float, query: bytes = b"SELECT 1"
) -> bool:
    """Whether the server answers a query within `seconds`, however the network behaves."""
    import psycopg

    deadline = time.monotonic() + seconds
    session = connection.pgconn
    arrived = select.poll()  # select() knows no descriptor above 1023, and agents take many
    try:
        arrived.register(session.socket, select.POLLIN)
        session.send_query(query)
        while session.is_busy():
            left = deadline - time.monotonic()
            if left <= 0 or not arrived.poll(1000 * left):
                return False
            session.consume_input()
        answered = True
        while (result := session.get_result()) is not None:
            answered = answered and result.status == psycopg.pq.ExecStatus.TUPLES_OK
    except (psycopg.Error, OSError, ValueError):
        return False
    return answered


def seat_of(database: Database) -> Seat:
    """The seat that belongs to a database."""
    if database.path is None:
        return PostgresSeat(database)
    return FileSeat(database.path.with_name(f"{database.path.name}.lock"))

"""A connection to the database of either dialect: snapshots to read, transactions to write."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError

from harp_client.durable import open_private
from harp_scheduler.store.errors import StoreUnavailable, WrongDatabase

BUSY = 5.0
"""Seconds that a transaction waits for another one that is in its way."""

POSTGRESQL_OPTIONS = {
    "lock_timeout": f"{BUSY:.0f}s",
    # A scheduler that stands still in the middle of a transaction must not stop its successor.
    "idle_in_transaction_session_timeout": "10s",
    # The server's end of a connection whose other end is gone without a word.
    "tcp_keepalives_idle": "2",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "2",
    "tcp_user_timeout": "4s",
}

POSTGRESQL_CONNECTION = {
    "application_name": "harp-scheduler",
    "connect_timeout": 5,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 2,
    "tcp_user_timeout": 4000,
    "options": " ".join(f"-c {name}={value}" for name, value in POSTGRESQL_OPTIONS.items()),
}


class Database:
    """One database."""

    def __init__(self, url: str) -> None:
        """`sqlite:///PATH` (the file is made where there is none) or `postgresql://…`.

        Raises WrongDatabase for any other URL; connects to nothing yet."""
        try:
            self.url = make_url(url)
        except (ArgumentError, ValueError):  # the second for a port that is no number
            shown = re.sub(r"(?<=//).*@", "***@", url)  # there is a password before the @
            raise WrongDatabase(
                f"{shown!r} is not the URL of a database",
                "sqlite:///PATH or postgresql://HOST/NAME",
            ) from None
        self.name = self.url.set(query={}).render_as_string(hide_password=True)
        """For people: without the password and what else may be secret."""

        match self.url.get_backend_name():
            case "sqlite" if self.url.database not in (None, "", ":memory:"):
                self.path: Path | None = Path(str(self.url.database)).absolute()
                self.url = URL.create("sqlite+pysqlite", database=str(self.path))
                arguments: dict[str, Any] = {"timeout": BUSY}
            case "postgresql" | "postgres":
                self.path = None
                self.url = self.url.set(drivername="postgresql+psycopg")
                # What the URL says wins; options of a session are added to ours.
                given = dict(self.url.query)
                options = f"{POSTGRESQL_CONNECTION['options']} {given.pop('options', '')}"
                self.url = self.url.set(query=given)
                arguments = {k: v for k, v in POSTGRESQL_CONNECTION.items() if k not in given}
                arguments["options"] = options
            case other:
                raise WrongDatabase(
                    f"a pool's state cannot be kept in {other}:",
                    "sqlite:///PATH or postgresql://HOST/NAME",
                )
        self.arguments = arguments
        self.engine = create_engine(self.url, connect_args=arguments, pool_size=2)
        if self.path is not None:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            event.listen(self.engine, "connect", _prepare_postgresql)

    @property
    def is_postgresql(self) -> bool:
        """Else it is a file of SQLite."""
        return self.path is None

    @property
    def is_missing(self) -> bool:
        """Whether it is a file of SQLite that is not there; to connect would make it."""
        return self.path is not None and not self.path.exists()

    def make_file(self) -> None:
        """Makes an SQLite file that only its owner can read, where there is none."""
        if self.path is None:
            return
        try:
            os.close(open_private(self.path))
        except OSError as error:
            raise StoreUnavailable(self.name, error.strerror or str(error)) from None

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One snapshot. Raises StoreUnavailable."""
        with self.reaching(), self.engine.connect() as connection:
            if self.is_postgresql:
                connection = connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
            with connection.begin():
                yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction, undone by any exception. Raises StoreUnavailable."""
        with (
            self.reaching(),
            self.engine.connect() as connection,
            connection.execution_options(harp_writes=True).begin(),
        ):
            yield connection

    def time(self) -> float:
        """Its clock, or that of the machine where the file is: seconds since 1970, UTC."""
        if not self.is_postgresql:
            return time.time()
        with self.reading() as connection:
            clock = "SELECT extract(epoch FROM clock_timestamp())"
            return float(connection.exec_driver_sql(clock).scalar_one())

    def take_time(self, connection: Connection) -> None:
        """Lets a transaction be as slow between its statements as it likes: a migration, or who
        reads or copies everything."""
        if self.is_postgresql:
            connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Turns what a driver raises where the database cannot be used into StoreUnavailable."""
        try:
            yield
        except (OperationalError, InterfaceError) as error:
            raise StoreUnavailable(self.name, first_line(error.orig)) from error
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            raise StoreUnavailable(self.name, first_line(error.orig)) from error

    def close(self) -> None:
        """Closes all connections."""
        self.engine.dispose()


def first_line(error: BaseException | None) -> str:
    """The first line of what a driver says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # transactions begin as `_begin_sqlite` says
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A writer waits for the lock here; later, SQLite would refuse it if another one had written.
    writes = connection.get_execution_options().get("harp_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _prepare_postgresql(connection: Any, _: object) -> None:
    # What a caller was told is stored stays stored, whatever the server's default is.
    connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false)"
        " WHERE current_setting('synchronous_commit') = 'off'"
    )
    connection.commit()

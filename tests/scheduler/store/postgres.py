"""A PostgreSQL server of the tests' own: on a Unix socket in a temporary folder, gone with them."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import psycopg

BOUND = 60.0
"""Seconds that the server may take to start or stop."""

# Becomes the user, so that PostgreSQL is willing to run; ends with the one who started it.
AS_USER = """
import ctypes, os, signal, sys
uid, gid, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
ctypes.CDLL(None).prctl(1, signal.SIGQUIT)
os.chdir("/")
os.execv(command[0], command)
"""


def binaries() -> Path | None:
    """Where initdb and postgres are: on the PATH, or where Debian keeps the newest version."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(versions, key=lambda path: int(path.parts[-3]), default=None)
    return newest.parent if newest else None


def account() -> tuple[int, int]:
    """Whom to run it as: never root."""
    if os.getuid():
        return os.getuid(), os.getgid()
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise RuntimeError("PostgreSQL does not run as root, and there is no user nobody")


class Postgres:
    """One server with as many empty databases as are wanted."""

    def __init__(self, programs: Path, *, durable: bool = False) -> None:
        """With `durable`, it waits for the disk as a real one does."""
        self._programs = programs
        self._uid, self._gid = account()
        self.folder = Path(tempfile.mkdtemp(prefix="harp-pg-"))
        os.chown(self.folder, self._uid, self._gid)
        self.url = f"postgresql://harp@/postgres?host={self.folder}"
        self.data = self.folder / "data"
        self._log = self.folder / "log"
        self._names = count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._options = [] if durable else ["-c", "fsync=off", "-c", "full_page_writes=off"]
        command = ["--pgdata", self.data, "--username=harp", "--auth=trust", "--no-sync"]
        self._run("initdb", [*map(str, command), "--encoding=UTF8", "--locale=C"]).wait()
        self.start()

    def _run(self, program: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        identity = [str(self._uid), str(self._gid)]
        command = [sys.executable, "-c", AS_USER, *identity, str(self._programs / program)]
        with self._log.open("ab") as log:
            return subprocess.Popen([*command, *arguments], stdout=log, stderr=log)

    def start(self) -> None:
        """Starts it and waits until it answers."""
        options = ["-c", "listen_addresses=", "-c", "max_connections=50", *self._options]
        where = ["-D", str(self.data), "-k", str(self.folder)]
        self._process = self._run("postgres", [*where, *options])
        deadline = time.monotonic() + BOUND
        while True:
            try:
                psycopg.connect(self.url).close()
                return
            except psycopg.OperationalError:
                late = time.monotonic() > deadline or self._process.poll() is not None
                assert not late, self._log.read_text()
                time.sleep(0.05)

    def stop(self) -> None:
        """Ends all its connections and stops."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(BOUND)

    def remove(self) -> None:
        """Ends it at once, and removes all it wrote."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(BOUND)
        shutil.rmtree(self.folder)

    def new_database(self) -> str:
        """The URL of an empty database: a schema, as several pools may share a server."""
        name = f"pool{next(self._names)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"{self.url}&options=-csearch_path%3D{name}"

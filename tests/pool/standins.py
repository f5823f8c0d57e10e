"""What the tests of this folder share: the commands, a pool's credentials, a running server."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harp_server.ca import Authority, save_user

HARP = [sys.executable, "-c", "from harp_client.cli import main; main()"]
HARP_RUN = [sys.executable, "-c", "from harp_client.run import main; main()"]

BOUND = 20.0
"""Seconds that anything here may take before a test gives up."""


ASKING_NOTHING = {"HARP_PTX": "0"}
"""Says whether client libraries must hand over PTX, so that `harp-run` opens no session of its own
to ask the server: for tests that count sessions."""


def environment(folder: Path) -> dict[str, str]:
    """An environment without anything of HARP's or CUDA's, in which nothing outside `folder` is
    touched."""
    ours = ("HARP_", "XDG_", "CUDA_", "CUPY_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    kept["HARP_STATE_DIR"] = str(folder / "state")
    kept["HARP_CACHE_DIR"] = str(folder / "cache")
    kept["XDG_CONFIG_HOME"] = str(folder / "config")
    return kept


def wait_until(condition: Callable[[], bool], what: str, seconds: float = BOUND) -> None:
    """Polls until `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still not after {seconds} s: {what}"
        time.sleep(0.02)


def processes_with(*marks: str) -> list[int]:
    """Processes whose command line or environment carries all `marks`."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            text = Path("/proc", entry, "cmdline").read_bytes()
            text += Path("/proc", entry, "environ").read_bytes()
        except OSError:
            continue
        if int(entry) != os.getpid() and all(mark.encode() in text for mark in marks):
            found.append(int(entry))
    return found


class Pool:
    """An authority, one server's credentials and one user's."""

    def __init__(self, folder: Path, name: str = "lab") -> None:
        self.authority = Authority.create(name)
        self.server = folder / f"{name}-server"
        self.user = folder / f"{name}-user"
        issuer = self.authority.issue_server("one")
        issuer.save(self.server)
        save_user(self.user, issuer.root_pem, self.authority.issue_user("research", "alice"))


class Server:
    """A running `harp server`."""

    def __init__(self, pool: Pool, environ: dict[str, str], log: Path, *options: str) -> None:
        self.log = log
        self.pool = pool
        ready_read, ready_write = os.pipe()
        command = [*HARP, "server", "--listen", "127.0.0.1:0", "--credentials", str(pool.server)]
        command += ["--log-format", "json", "--ready-fd", str(ready_write), *options]
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                command, env=environ, stderr=stderr, stdout=subprocess.PIPE, pass_fds=[ready_write]
            )
        os.close(ready_write)
        with os.fdopen(ready_read) as ready:
            self.address = ready.readline().strip()
        assert self.address, f"the server did not start:\n{log.read_text()}"

    def lines(self, event: str) -> list[dict[str, object]]:
        """The log's lines of one kind."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line]
        return [line for line in lines if line["event"] == event]

    def connect(self, user: Path | None = None) -> ssl.SSLSocket:
        """A client of stock TLS: checks the chain and the name as the interposer does."""
        user = user or self.pool.user
        context = ssl.create_default_context(cafile=str(user / "ca.pem"))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(user / "client.pem", user / "client.key")
        host, _, port = self.address.rpartition(":")
        raw = socket.create_connection((host, int(port)), timeout=BOUND)
        return context.wrap_socket(raw, server_hostname="harp-server")

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=BOUND)
        return self.process.returncode


@contextmanager
def servers(pool: Pool, environ: dict[str, str], folder: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers that end with it, each with the options that it is called with."""
    started: list[Server] = []

    def start(*options: str) -> Server:
        server = Server(pool, environ, folder / f"server-{len(started)}.log", *options)
        started.append(server)
        return server

    try:
        yield start
    finally:
        for server in started:
            server.process.kill()
            server.process.communicate()

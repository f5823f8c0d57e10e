"""Where faults are brought about: a pool, a server, clocks that lie, programs that meet them."""

from __future__ import annotations

import datetime
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest

from harp_server.ca import KeyPair, SessionIssuer, save_user
from pool.standins import ASKING_NOTHING, BOUND, HARP_RUN, Pool, Server, environment

HERE = Path(__file__).parent
PROBE = [sys.executable, str(HERE / "probe.py")]
DAY = 86_400

CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    const char *by = getenv("TEST_CLOCK_AHEAD");
    if (clock == CLOCK_REALTIME && by) now->tv_sec += atoll(by);
    return result;
}
"""


class Seen(NamedTuple):
    """What a person and a program saw."""

    lines: list[str]
    calls: list[tuple[str, int]]
    status: int

    @property
    def code(self) -> int:
        """Of the first call that failed."""
        assert self.calls, f"no call failed: {self}"
        return self.calls[0][1]


class Stage:
    """One pool with one server, and what a test adds."""

    def __init__(self, folder: Path, api: str) -> None:
        self.folder = folder
        self.api = api
        self.pool = Pool(folder)
        self.environ = environment(folder) | ASKING_NOTHING
        if api == "runtime":
            self.environ["CUDART"] = cudart()
        self.servers: list[Server] = []

    def server(self, *options: str, **environ: str) -> Server:
        """Starts a server of the pool."""
        log = self.folder / f"server-{len(self.servers)}.log"
        server = Server(self.pool, {**self.environ, **environ}, log, *options)
        self.servers.append(server)
        return server

    def close(self) -> None:
        for server in self.servers:
            server.process.kill()
            server.process.communicate()

    def command(
        self, address: str, user: Path, *steps: str, options: tuple[str, ...] = ()
    ) -> list[str]:
        at = ["--server", address, "--credentials", str(user), *options]
        return [*HARP_RUN, *at, "--", *PROBE, self.api, *steps]

    def run(
        self,
        address: str,
        *steps: str,
        user: Path | None = None,
        options: tuple[str, ...] = (),
        environ: Mapping[str, str] | None = None,
    ) -> Seen:
        """Runs a program to its end."""
        done = subprocess.run(
            self.command(address, user or self.pool.user, *steps, options=options),
            env={**self.environ, **(environ or {})},
            capture_output=True,
            text=True,
            timeout=4 * BOUND,
        )
        return seen(done.stdout, done.stderr, done.returncode)

    def start(self, address: str) -> Working:
        """Starts a program that works until a call fails."""
        return Working(self.command(address, self.pool.user, "loop"), self.environ)

    def clock(self, ahead: int) -> dict[str, str]:
        """An environment whose clock is so many seconds ahead."""
        library = self.folder / "clock.so"
        if not library.exists():
            source = self.folder / "clock.c"
            source.write_text(CLOCK)
            command = ["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
            subprocess.run(command, check=True)
        return {"LD_PRELOAD": str(library), "TEST_CLOCK_AHEAD": str(ahead)}

    def user(self, begins: int, days: int = 365) -> Path:
        """Credentials of a user that are issued so many seconds from now."""
        with issued(begins):
            key: KeyPair = self.pool.authority.issue_user("research", "bob", days)
        folder = self.folder / "bob"
        save_user(folder, (self.pool.user / "ca.pem").read_bytes(), key)
        return folder


class Working:
    """A program in the middle of its work."""

    def __init__(self, command: list[str], environ: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line == "working\n", (line, self.process.communicate())

    def end(self) -> Seen:
        stdout, stderr = self.process.communicate(timeout=6 * BOUND)
        return seen(stdout, stderr, self.process.returncode)


def seen(stdout: str, stderr: str, status: int) -> Seen:
    calls = [line.split() for line in stdout.splitlines() if " " in line]
    return Seen(stderr.splitlines(), [(name, int(code)) for name, code in calls], status)


@contextmanager
def issued(begins: int) -> Iterator[None]:
    """What is issued inside is issued so many seconds from now."""
    real = datetime.datetime

    class Shifted(real):  # type: ignore[valid-type, misc]
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return super().now(tz) + datetime.timedelta(seconds=begins)

    with mock.patch("harp_server.ca.datetime.datetime", Shifted):
        yield


def cudart() -> str:
    """A runtime of NVIDIA's, from the wheels that the client tests use."""
    found = sorted(
        Path(".cache/clients-venv").glob("lib/*/site-packages/nvidia/*/lib/libcudart.so.12")
    )
    if not found:
        pytest.skip("no libcudart.so.12: `make clients` brings it")
    return str(found[0].absolute())


@contextmanager
def stock_server(pool: Pool, major: int, minor: int) -> Iterator[str]:
    """A server of stock gRPC that welcomes with a version of its own."""
    import grpc

    def field(number: int, payload: bytes) -> bytes:
        return bytes([number << 3 | 2, len(payload)]) + payload

    version = bytes([1 << 3, major, 2 << 3, minor])
    welcome = bytes([1 << 3, 1]) + field(3, field(1, version) + field(2, b"s") + field(3, b"{}"))

    def open_session(frames: Iterator[bytes], _context: grpc.ServicerContext) -> Iterator[bytes]:
        next(frames)
        yield welcome
        for _ in frames:
            pass

    chain, key = SessionIssuer.load(pool.server).issue("stock")
    credentials = grpc.ssl_server_credentials(
        [(key.encode(), chain.encode())], (pool.server / "ca.pem").read_bytes(), True
    )
    handler = grpc.stream_stream_rpc_method_handler(open_session)
    service = grpc.method_handlers_generic_handler("harp.data.v1.Session", {"Open": handler})
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((service,))
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()

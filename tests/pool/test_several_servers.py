"""One program on the devices of several servers, which fail and come back one by one."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pool.standins import (
    ASKING_NOTHING,
    BOUND,
    HARP,
    HARP_RUN,
    Pool,
    Server,
    environment,
    servers,
    wait_until,
)
from weather.proxy import Proxy

PROGRAM = [sys.executable, str(Path(__file__).with_name("obedient_program.py"))]
StartServer = Callable[..., Server]

NO_DEVICE = 100
INVALID_DEVICE = 101
DEVICE_UNAVAILABLE = 46


class Obedient:
    """A running program that does what it is told."""

    def __init__(self, environ: dict[str, str], user: Path, *addresses: str) -> None:
        options = [word for address in addresses for word in ("--server", address)]
        self.process = subprocess.Popen(
            [*HARP_RUN, *options, "--credentials", str(user), "--", *PROGRAM],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.begun = self._line()

    def tell(self, line: str) -> str:
        """What it answers."""
        assert self.process.stdin is not None
        print(line, file=self.process.stdin, flush=True)
        return self._line()

    def end(self) -> str:
        """Lets it end in good order; returns what stood on its stderr."""
        _, stderr = self.process.communicate(timeout=BOUND)
        assert self.process.returncode == 0, stderr
        return stderr

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path) | ASKING_NOTHING | {"HARP_SOFT_MEMORY": "256MiB"}


@pytest.fixture
def user(pool: Pool) -> Path:
    return pool.user


@pytest.fixture
def start_with(
    pool: Pool, environ: dict[str, str], tmp_path: Path
) -> Iterator[Callable[[int], Server]]:
    """Starts a server with so many soft devices, and options; it does not outlive the test."""
    opened = []

    def start(devices: int, *options: str) -> Server:
        folder = tmp_path / f"host-{len(opened)}"
        folder.mkdir()
        opened.append(servers(pool, environ | {"HARP_SOFT_DEVICES": str(devices)}, folder))
        return opened[-1].__enter__()(*options)

    yield start
    for server in opened:
        server.__exit__(None, None, None)


def worker_of(server: Server) -> int:
    """The process that serves the one session of a server."""
    (line,) = server.lines("session start")
    return int(str(line["worker"]))


def test_devices_are_numbered_in_the_order_of_the_servers(
    environ: dict[str, str], user: Path, start_with: StartServer
) -> None:
    one, two = start_with(1), start_with(4)
    program = Obedient(environ, user, one.address, f"{two.address}/3+0")
    assert program.begun == "init 0"
    # Bus numbers count from 1; the domain tells the servers apart.
    assert program.tell("devices") == "3 0000:01:00.0 0100:04:00.0 0100:01:00.0"
    for device in range(3):
        assert program.tell(f"use {device}") == "0"
        assert program.tell(f"kernel {device}") == "0"
    for pair in ("0 1", "1 0", "1 2", "2 0"):
        assert program.tell(f"copy {pair}") == "0", pair
    assert program.tell("retain 3") == str(INVALID_DEVICE)
    program.end()
    for server in (one, two):
        wait_until(lambda server=server: bool(server.lines("session end")), "the end is logged")
        (end,) = server.lines("session end")
        assert end["cause"] == "the client has finished"


def test_a_program_chooses_among_the_devices_of_all_servers(
    environ: dict[str, str], user: Path, start_with: StartServer
) -> None:
    one, two = start_with(1), start_with(2)
    chosen = environ | {"CUDA_VISIBLE_DEVICES": "2,0", "HARP_SYNC": "1"}
    program = Obedient(chosen, user, one.address, two.address)
    assert program.tell("devices") == "2 0100:02:00.0 0000:01:00.0"
    assert program.tell("kernel 0") == program.tell("kernel 1") == "0"
    assert program.tell("copy 0 1") == program.tell("copy 1 0") == "0"
    program.end()


def test_a_server_offers_some_of_its_devices(
    environ: dict[str, str], user: Path, start_with: StartServer
) -> None:
    server = start_with(4, "--devices", "2,0")
    program = Obedient(environ, user, server.address)
    assert program.tell("devices") == "2 0000:03:00.0 0000:01:00.0"
    assert program.tell("kernel 0") == program.tell("kernel 1") == "0"
    assert program.tell("copy 0 1") == "0"
    assert program.tell("retain 2") == str(INVALID_DEVICE)
    program.end()


def test_a_server_has_no_device_that_it_is_to_offer(
    environ: dict[str, str], pool: Pool, user: Path, start_with: StartServer
) -> None:
    command = [*HARP, "server", "--listen", "127.0.0.1:0", "--credentials", str(pool.server)]
    for devices, cause in (("0,1", "there is no device 1"), ("0,0", "not a list of devices")):
        done = subprocess.run(
            [*command, "--devices", devices],
            env=environ,
            capture_output=True,
            text=True,
            timeout=BOUND,
        )
        assert done.returncode != 0
        assert cause in done.stderr
    server = start_with(1)
    program = Obedient(environ, user, f"{server.address}/1")
    assert program.begun == f"init {NO_DEVICE}"
    assert f"{server.address} has no device 1" in program.end()


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_workers_device_fails_and_the_other_goes_on(
    environ: dict[str, str], user: Path, start_with: StartServer, victim: int
) -> None:
    both = [start_with(1), start_with(1)]
    program = Obedient(environ, user, *(server.address for server in both))
    survivor = 1 - victim
    assert program.tell("use 0") == program.tell("use 1") == "0"
    os.kill(worker_of(both[victim]), signal.SIGKILL)
    assert program.tell(f"use {victim}") == str(DEVICE_UNAVAILABLE)
    assert program.tell(f"use {survivor}") == "0"
    # What needs the server anew works too: code that was not there before.
    assert program.tell(f"kernel {survivor}") == "0"
    assert program.tell(f"copy {survivor} {victim}") == str(DEVICE_UNAVAILABLE)
    assert program.tell(f"use {survivor}") == "0"
    lines = program.end().splitlines()
    lost = [line for line in lines if "is lost" in line]
    assert len(lost) == 1, lines
    assert f"the pool server {both[victim].address} is lost" in lost[0]


def test_each_session_is_resumed_by_itself(
    environ: dict[str, str], user: Path, start_with: StartServer
) -> None:
    one, two = start_with(1), start_with(1)
    with Proxy(one.address) as near, Proxy(two.address) as far:
        program = Obedient(environ | {"HARP_STATS": "1"}, user, near.address, far.address)
        assert program.tell("copy 0 1") == "0"
        for proxy in (far, near, far):
            proxy.cut()
            assert program.tell("copy 0 1") == "0"
            assert program.tell("copy 1 0") == "0"
        summaries = [line for line in program.end().splitlines() if "calls sent" in line]
    assert ["resumed once" in line for line in summaries] == [True, False]
    assert "resumed 2 times" in summaries[1]
    assert len(one.lines("session resumed")) == 1
    assert len(two.lines("session resumed")) == 2


def test_a_forked_child_leaves_both_sessions_alone(
    environ: dict[str, str], user: Path, start_with: StartServer
) -> None:
    one, two = start_with(1), start_with(1)
    program = Obedient(environ, user, one.address, two.address)
    assert program.tell("use 0") == program.tell("use 1") == "0"
    assert program.tell("fork") == "17", "the child gets CUDA_ERROR_NOT_INITIALIZED"
    assert program.tell("use 0") == program.tell("copy 1 0") == "0"
    program.end()
    for server in (one, two):
        wait_until(lambda server=server: bool(server.lines("session end")), "the end is logged")
        assert len(server.lines("session start")) == 1


def test_a_server_that_is_not_there_is_named(
    environ: dict[str, str], user: Path, start_with: StartServer
) -> None:
    one, two = start_with(1), start_with(1)
    assert two.stop() == 0
    program = Obedient(environ, user, one.address, two.address)
    assert program.begun == f"init {NO_DEVICE}"
    stderr = program.end()
    assert f"cannot use the pool server {two.address}" in stderr
    wait_until(lambda: bool(one.lines("session end")), "the other session is given up")


@pytest.mark.parametrize("hosts", [1, 2])
def test_contexts_come_and_go_in_threads(
    environ: dict[str, str], user: Path, start_with: StartServer, hosts: int
) -> None:
    both = [start_with(2 // hosts) for _ in range(hosts)]
    servers = [word for server in both for word in ("--server", server.address)]
    program = [sys.executable, str(Path(__file__).with_name("contexts_in_threads.py"))]
    done = subprocess.run(
        [*HARP_RUN, *servers, "--credentials", str(user), "--", *program],
        env=environ,
        capture_output=True,
        text=True,
        timeout=BOUND,
    )
    assert (done.returncode, done.stdout) == (0, "240 of 240\n"), done.stderr

"""The real parts together: what works, and what a person reads when something is wrong."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
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
    processes_with,
    wait_until,
)

PROGRAM = [sys.executable, str(Path(__file__).with_name("driver_program.py"))]

NO_DEVICE = 100
DEVICE_UNAVAILABLE = 46


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    """The stand-ins' environment with the real parts in their place."""
    return {k: v for k, v in environ.items() if k != "HARP_NATIVE_DIR"} | ASKING_NOTHING


def run(
    environ: dict[str, str], *options: str, mode: str = "once"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HARP_RUN, *options, "--", *PROGRAM, mode],
        env=environ,
        capture_output=True,
        text=True,
        timeout=BOUND,
    )


def at(server: str, user: Path) -> tuple[str, ...]:
    return ("--server", server, "--credentials", str(user))


@pytest.mark.parametrize("options", [["--direct"], ["--embedded"], ["--embedded", "--sync"]])
def test_a_program_runs(environ: dict[str, str], options: list[str]) -> None:
    done = run(environ, *options)
    assert done.returncode == 0, done.stderr
    assert {line.split()[1] for line in done.stdout.splitlines()} == {"0"}


@pytest.mark.parametrize("options", [["--direct"], ["--embedded"], ["--embedded", "--sync"]])
def test_a_thread_that_waits_holds_up_no_other(environ: dict[str, str], options: list[str]) -> None:
    program = [sys.executable, str(Path(__file__).with_name("threads_that_wait.py"))]
    # The kernel that is waited for has one of the soft GPU's threads.
    environ = environ | {"HARP_SOFT_THREADS": "2"}
    command = [*HARP_RUN, *options, "--", *program]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=4 * BOUND)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [*["others"] * 4, "written", "kernel"]


def test_a_program_runs_with_stderr_in_a_file(environ: dict[str, str], tmp_path: Path) -> None:
    """Jailed processes may write to no file, and must not be given one to write to."""
    with (tmp_path / "stderr").open("wb") as file:
        command = [*HARP_RUN, "--embedded", "--", *PROGRAM, "once"]
        done = subprocess.run(command, env=environ, stdout=file, stderr=file, timeout=BOUND)
    assert done.returncode == 0, (tmp_path / "stderr").read_text()


def test_a_program_runs_on_a_running_server(
    environ: dict[str, str], start_server: Callable[..., Server]
) -> None:
    server = start_server()
    for _ in range(2):
        done = run(environ, *at(server.address, server.pool.user))
        assert done.returncode == 0, done.stderr
    wait_until(lambda: len(server.lines("session end")) == 2, "both ends are logged")
    for start, end in zip(server.lines("session start"), server.lines("session end"), strict=True):
        assert start["peer"] == "spiffe://lab/tenant/research/user/alice"
        assert end["level"] == "info"
        assert 0 < int(str(end["waits"])) < int(str(end["calls"]))
        assert int(str(end["bytes_in"])) > 4096
        assert int(str(end["bytes_out"])) > 4096
    assert server.stop() == 0


def test_stats_name_what_travelled(environ: dict[str, str]) -> None:
    told = run(environ, "--embedded", "--stats").stderr
    for part in ("calls sent", "waited", "TLSv1.3", "_GCM_SHA"):
        assert part in told.replace("TLS 1.3", "TLSv1.3").replace("TLS1.3", "TLSv1.3"), told


def test_a_program_without_cuda_connects_to_nothing(
    environ: dict[str, str], start_server: Callable[..., Server]
) -> None:
    server = start_server()
    done = run(environ, *at(server.address, server.pool.user), "--stats", mode="nothing")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # Also when there is nothing to connect to.
    done = run(environ, *at("127.0.0.1:1", server.pool.user), mode="nothing")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not server.lines("session start")


def assert_told(done: subprocess.CompletedProcess[str], *parts: str, code: int = NO_DEVICE) -> None:
    """The program got CUDA's code, the person one line with the cause."""
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("harp: ")
    for part in parts:
        assert part in done.stderr
    assert done.returncode == 3, done.stdout
    assert done.stdout.splitlines()[-1].split()[1] == str(code)


def test_wrong_server_name(environ: dict[str, str], start_server: Callable[..., Server]) -> None:
    server = start_server()
    options = (*at(server.address, server.pool.user), "--server-name", "elsewhere")
    assert_told(run(environ, *options), "elsewhere", "--server-name")


def test_no_server(environ: dict[str, str], pool: Pool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = "{}:{}".format(*free.getsockname())
    assert_told(run(environ, *at(address, pool.user)), address, "refused", "Next: ")


def test_a_server_that_does_not_answer(environ: dict[str, str], pool: Pool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = "{}:{}".format(*silent.getsockname())
        assert_told(run(environ | {"HARP_CONNECT_TIMEOUT": "1"}, *at(address, pool.user)), address)


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A port that speaks something else."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(65536)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield "{}:{}".format(*listener.getsockname())
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(BOUND)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b""]
)
def test_a_port_that_speaks_something_else(
    environ: dict[str, str], pool: Pool, answer: bytes
) -> None:
    with answering(answer) as address:
        assert_told(run(environ, *at(address, pool.user)), address)


def test_wrong_authority(
    environ: dict[str, str], start_server: Callable[..., Server], tmp_path: Path
) -> None:
    """Neither side takes the other: here the client refuses the server's chain first."""
    server = start_server()
    stranger = Pool(tmp_path, "other")
    assert_told(run(environ, *at(server.address, stranger.user)), "certificate")
    assert not server.lines("session start")


def test_a_stranger_with_the_right_authority(
    environ: dict[str, str], start_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = start_server()
    stranger = Pool(tmp_path, "other")
    (stranger.user / "ca.pem").write_bytes((server.pool.user / "ca.pem").read_bytes())
    assert_told(run(environ, *at(server.address, stranger.user)), "certificate")
    wait_until(lambda: bool(server.lines("connection refused")), "the refusal is logged")


def test_a_servers_certificate_is_no_user(
    environ: dict[str, str], start_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = start_server()
    thief = tmp_path / "thief"
    thief.mkdir()
    for name, source in (
        ("ca.pem", "ca.pem"),
        ("client.pem", "server.pem"),
        ("client.key", "server.key"),
    ):
        shutil.copy(server.pool.server / source, thief / name)
    assert_told(run(environ, *at(server.address, thief)), "certificate")


def test_no_credentials_in_the_environment(environ: dict[str, str]) -> None:
    """A program started by hand, past harp-run's own check."""
    done = run(environ, "--embedded", mode="nothing")
    assert done.returncode == 0
    unset = ["env", "--unset", "HARP_CREDENTIALS"]
    command = [*HARP_RUN, "--embedded", "--", *unset, *PROGRAM, "once"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=BOUND)
    assert_told(done, "HARP_CREDENTIALS")


class Looping:
    """A program in the middle of its work, under harp-run."""

    def __init__(self, environ: dict[str, str], *options: str) -> None:
        command = [*HARP_RUN, *options, "--", *PROGRAM, "loop"]
        self.process = subprocess.Popen(
            command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        while (line := self.process.stdout.readline()) != "cuCtxSynchronize 0\n":
            assert line, self.process.communicate()

    def finish(self) -> subprocess.CompletedProcess[str]:
        stdout, stderr = self.process.communicate(timeout=BOUND)
        return subprocess.CompletedProcess([], self.process.returncode, stdout, stderr)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_ends_in_mid_run(
    environ: dict[str, str], start_server: Callable[..., Server], number: signal.Signals
) -> None:
    server = start_server("--drain", "0")
    looping = Looping(environ, *at(server.address, server.pool.user))
    server.process.send_signal(number)
    assert_told(looping.finish(), "connection", "server", code=DEVICE_UNAVAILABLE)


def test_the_worker_dies_in_mid_run(
    environ: dict[str, str], start_server: Callable[..., Server]
) -> None:
    server = start_server()
    looping = Looping(environ, *at(server.address, server.pool.user))
    wait_until(lambda: bool(server.lines("session start")), "its session is logged")
    os.kill(int(str(server.lines("session start")[0]["worker"])), signal.SIGKILL)
    assert_told(looping.finish(), "connection", code=DEVICE_UNAVAILABLE)
    wait_until(lambda: bool(server.lines("session end")), "its end is logged")
    (end,) = server.lines("session end")
    assert (end["level"], end["cause"]) == ("error", "killed by signal 9 (Killed)")
    assert run(environ, *at(server.address, server.pool.user)).returncode == 0


def named_memory(pids: list[int]) -> set[str]:
    """Shared memory of these processes that would outlive them."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
            found |= {line.split()[-1] for line in lines if "/dev/shm/" in line}
    return found


@pytest.mark.parametrize("victim", ["harp-run", "program", "pool"])
def test_kill_9_leaves_nothing(environ: dict[str, str], victim: str) -> None:
    state = environ["HARP_STATE_DIR"]
    looping = Looping(environ, "--embedded")
    pids = {
        "harp-run": [looping.process.pid],
        "program": [p for p in processes_with(state, PROGRAM[1]) if p != looping.process.pid],
        "pool": processes_with(state, "harp_server.embedded\0--lifeline-fd"),
    }
    assert len(pids[victim]) == 1
    assert not named_memory(processes_with(state))
    os.kill(pids[victim][0], signal.SIGKILL)
    looping.finish()
    wait_until(lambda: not processes_with(state), "no process is left", 10)
    wait_until(lambda: not list(Path(state).glob("pool-*")), "no folder is left", 10)


def test_doctor(environ: dict[str, str], start_server: Callable[..., Server]) -> None:
    server = start_server()
    environ |= {"HARP_SERVER": server.address, "HARP_CREDENTIALS": str(server.pool.user)}
    done = subprocess.run(
        [*HARP, "doctor"], env=environ, capture_output=True, text=True, timeout=BOUND
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("HARP Soft GPU") == 2, "embedded and configured"


QUICK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
int main(void) {
    int (*begin)(unsigned) = (int (*)(unsigned))dlsym(RTLD_DEFAULT, "cuInit");
    int (*devices)(int *) = (int (*)(int *))dlsym(RTLD_DEFAULT, "cuDeviceGetCount");
    int code = begin(0), count;
    return code ? code : devices(&count);
}
"""


def test_who_comes_after_another_gets_the_only_session(
    environ: dict[str, str], start_server: Callable[..., Server], tmp_path: Path
) -> None:
    """The one before, be it harp-run's own question for the kind of device, is still on its way
    out when a program that starts in no time wants the server's only session."""
    source, quick = tmp_path / "quick.c", tmp_path / "quick"
    source.write_text(QUICK)
    subprocess.run(["cc", "-o", str(quick), str(source), "-ldl"], check=True)
    server = start_server("--max-sessions", "1", "--idle-workers", "2")
    asking = {k: v for k, v in environ.items() if k not in ASKING_NOTHING}
    for number in range(4):
        asking["HARP_STATE_DIR"] = f"{environ['HARP_STATE_DIR']}-{number}"
        command = [*HARP_RUN, *at(server.address, server.pool.user), "--", str(quick)]
        done = subprocess.run(command, env=asking, capture_output=True, text=True, timeout=BOUND)
        assert done.returncode == 0, done.stderr
    wait_until(lambda: len(server.lines("session end")) == 8, "all have ended")
    assert not server.lines("connection refused")


def test_a_server_that_does_not_answer_is_told_of_once(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """By the program, if it uses the device; asking for the device's kind says nothing."""
    asking = {k: v for k, v in environ.items() if k not in ASKING_NOTHING}
    asking["HARP_CONNECT_TIMEOUT"] = "0.5"
    user = Pool(tmp_path).user
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for address in ("127.0.0.1:1", f"127.0.0.1:{silent.getsockname()[1]}"):
            done = run(asking, *at(address, user), mode="nothing")
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
            assert_told(run(asking, *at(address, user)), address)

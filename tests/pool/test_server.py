"""`harp server`: sessions, their log lines, its end and its death, with stand-in processes."""

import contextlib
import os
import resource
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from harp_server.agent import FILES, SESSION_FILES
from pool.standins import BOUND, HARP, Pool, Server, processes_with, wait_until

StartServer = Callable[..., Server]


def echo(stream: ssl.SSLSocket, line: bytes) -> bytes:
    stream.sendall(line)
    return stream.recv(len(line))


def client_hello() -> bytes:
    """The first bytes of a TLS client that asks for the server."""
    nothing, hello = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(nothing, hello, server_hostname="harp-server")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return hello.read()


def test_session_is_served_and_logged(start_server: StartServer) -> None:
    server = start_server()
    with server.connect() as stream:
        assert stream.version() == "TLSv1.3"
        assert echo(stream, b"hello\n") == b"hello\n"
    wait_until(lambda: bool(server.lines("session end")), "the session's end is logged")
    (start,), (end,) = server.lines("session start"), server.lines("session end")
    assert start["peer"] == "spiffe://lab/tenant/research/user/alice"
    assert start["program"] == "fake [31m", "terminal escapes are stripped"
    assert end["session"] == start["session"]
    assert (end["calls"], end["waits"], end["bytes_in"], end["bytes_out"]) == (1, 1, 6, 6)
    assert end["cause"] == "client closed"
    assert server.stop() == 0


def test_each_session_has_its_own_worker_and_certificate(start_server: StartServer) -> None:
    server = start_server("--idle-workers", "0")
    with server.connect() as one, server.connect() as two:
        assert one.getpeercert(True) != two.getpeercert(True)
        assert echo(one, b"1\n") + echo(two, b"2\n") == b"1\n2\n"
        workers = {line["worker"] for line in server.lines("session start")}
        assert len(workers) == 2


def test_workers_of_more_sessions_than_cores_do_not_spin(start_server: StartServer) -> None:
    server = start_server("--idle-workers", "0")
    cores = len(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        told = []
        for _ in range(cores + 1):
            stream = stack.enter_context(server.connect())
            stream.sendall(b"spin\n")
            told.append(stream.recv(64))
    assert told == [b"None\n"] * cores + [b"0\n"]


def test_a_dying_worker_ends_its_session_only(start_server: StartServer) -> None:
    server = start_server()
    with server.connect() as victim, server.connect() as bystander:
        echo(bystander, b"before\n")
        victim.sendall(b"die\n")
        wait_until(lambda: bool(server.lines("session end")), "the lost session is logged")
        assert echo(bystander, b"after\n") == b"after\n"
    (lost,) = [line for line in server.lines("session end") if line["level"] == "error"]
    assert "signal 11" in str(lost["cause"])
    assert lost["calls"] is None, "a dead worker has told no counts"


def test_a_violation_is_logged_as_an_error_with_its_counts(start_server: StartServer) -> None:
    server = start_server()
    with server.connect() as stream:
        stream.sendall(b"fault\n")
        wait_until(lambda: bool(server.lines("session end")), "the session's end is logged")
    (end,) = server.lines("session end")
    assert (end["level"], end["cause"], end["calls"]) == ("error", "protocol violation", 1)


def test_another_pools_user_is_refused(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server()
    stranger = Pool(tmp_path, "other")
    (stranger.user / "ca.pem").write_bytes((server.pool.user / "ca.pem").read_bytes())
    with pytest.raises(OSError), server.connect(stranger.user) as stream:  # noqa: PT011
        assert echo(stream, b"hello\n")
    wait_until(lambda: bool(server.lines("connection refused")), "the refusal is logged")
    assert not server.lines("session start")
    with server.connect() as stream:
        assert echo(stream, b"still here\n") == b"still here\n"


def test_sessions_are_limited(start_server: StartServer) -> None:
    server = start_server("--max-sessions", "1")
    with server.connect() as stream:
        echo(stream, b"first\n")
        # The second client is let in as far as to hear why; this stand-in only hangs up.
        with contextlib.suppress(OSError), server.connect() as refused:
            assert refused.recv(1) == b""
        wait_until(lambda: bool(server.lines("connection refused")), "the refusal is logged")
        (line,) = server.lines("connection refused")
        assert "all 1 sessions" in str(line["cause"])
        assert echo(stream, b"still here\n") == b"still here\n"


def test_a_full_server_has_room_for_who_comes_after_another(start_server: StartServer) -> None:
    """A session takes its time to end; the next client waits for that and is not refused."""
    server = start_server("--max-sessions", "1")
    first = server.connect()
    assert echo(first, b"first\n") == b"first\n"
    leaving = threading.Timer(0.1, first.close)
    leaving.start()
    with server.connect() as second:
        assert echo(second, b"second\n") == b"second\n"
    leaving.join()
    assert not server.lines("connection refused")


def test_stop_does_not_wait_for_who_waits_for_room(start_server: StartServer) -> None:
    server = start_server("--max-sessions", "1", "--drain", "0")
    with server.connect() as stream:
        assert echo(stream, b"first\n") == b"first\n"
        host, _, port = server.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=BOUND) as waiting:
            waiting.sendall(client_hello())
            assert server.stop() == 0
            with contextlib.suppress(ConnectionResetError):
                assert waiting.recv(1) == b""


def test_stop_drains_and_leaves_nothing(start_server: StartServer, native_dir: Path) -> None:
    server = start_server("--drain", str(BOUND))
    stream = server.connect()
    echo(stream, b"hello\n")
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: bool(server.lines("draining")), "the server drains")
    assert echo(stream, b"still\n") == b"still\n", "a draining server serves its sessions"
    with pytest.raises(OSError):  # noqa: PT011
        server.connect()
    stream.close()
    server.process.communicate(timeout=BOUND)
    assert server.process.returncode == 0
    assert server.lines("session end")[0]["cause"] == "client closed"
    assert not processes_with(str(native_dir / "bin"))


def test_drain_is_bounded_by_a_second_signal(start_server: StartServer, native_dir: Path) -> None:
    server = start_server("--drain", "3600")
    with server.connect() as stream:
        echo(stream, b"hello\n")
        server.process.send_signal(signal.SIGINT)
        wait_until(lambda: bool(server.lines("draining")), "the server drains")
        server.process.send_signal(signal.SIGINT)
        server.process.communicate(timeout=BOUND)
    assert server.process.returncode == 0
    assert not processes_with(str(native_dir / "bin"))


def test_a_killed_server_leaves_nothing(start_server: StartServer, native_dir: Path) -> None:
    server = start_server()
    with server.connect() as stream:
        echo(stream, b"hello\n")
        assert processes_with(str(native_dir / "bin"))
        os.kill(server.process.pid, signal.SIGKILL)
        wait_until(lambda: not processes_with(str(native_dir / "bin")), "nothing is left", 10)
        assert stream.recv(1) == b""


def test_a_server_may_open_the_files_that_its_sessions_need(start_server: StartServer) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        server = start_server("--max-sessions", "20")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    most, _ = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    assert most == FILES + 20 * SESSION_FILES


def test_a_client_whose_socket_does_not_come_along_is_logged(
    start_server: StartServer, native_dir: Path
) -> None:
    gate = native_dir / "bin" / "harp-gate"
    gate.write_text(gate.read_text().replace(", [connection.fileno()])", ", [])"))
    server = start_server()
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=BOUND) as client:
        assert client.recv(1) == b""
    wait_until(lambda: bool(server.lines("connection dropped")), "it is logged")
    (dropped,) = server.lines("connection dropped")
    assert "no more files" in str(dropped["cause"])


def test_a_server_that_waits_for_its_driver_can_be_stopped(
    pool: Pool, environ: dict[str, str], native_dir: Path
) -> None:
    worker = native_dir / "bin" / "harp-worker"
    started = native_dir / "started"
    worker.write_text(f"#!/bin/sh\ntouch {started}\nexec sleep 3600\n")
    command = [*HARP, "server", "--listen", "127.0.0.1:0", "--credentials", str(pool.server)]
    server = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
    wait_until(started.exists, "a worker is started")
    server.send_signal(signal.SIGTERM)
    _, said = server.communicate(timeout=BOUND)
    assert (server.returncode, "server stopped" in said) == (0, True), said


def test_a_lost_gate_is_replaced(start_server: StartServer, native_dir: Path) -> None:
    server = start_server()
    (gate,) = processes_with(str(native_dir / "bin" / "harp-gate"))
    os.kill(gate, signal.SIGKILL)
    wait_until(lambda: bool(server.lines("gate lost")), "the loss is logged")
    with server.connect() as stream:
        assert echo(stream, b"hello\n") == b"hello\n"


def test_a_lost_idle_worker_is_replaced(start_server: StartServer, native_dir: Path) -> None:
    server = start_server()
    (idle,) = processes_with(str(native_dir / "bin" / "harp-worker"))
    os.kill(idle, signal.SIGKILL)
    wait_until(lambda: bool(server.lines("idle worker lost")), "the loss is logged")
    with server.connect() as stream:
        assert echo(stream, b"hello\n") == b"hello\n"


def run_server(environ: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HARP, "server", *options], env=environ, capture_output=True, text=True, timeout=BOUND
    )


def assert_one_line(text: str, *parts: str) -> None:
    """One readable line with a next step, and no traceback."""
    assert len(text.splitlines()) == 1, text
    assert "Next: " in text
    for part in parts:
        assert part in text


def test_start_failures_are_one_line(
    environ: dict[str, str], pool: Pool, tmp_path: Path, native_dir: Path
) -> None:
    credentials = ("--credentials", str(pool.server))
    nowhere = run_server(environ, "--credentials", str(tmp_path / "nowhere"))
    assert nowhere.returncode == 1
    assert_one_line(nowhere.stderr, "no server credentials", "harp ca server")

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        busy = run_server(environ, *credentials, "--listen", f"127.0.0.1:{port}")
    assert_one_line(busy.stderr, "cannot listen on", "--listen")

    assert_one_line(run_server(environ, *credentials, "--listen", "7443").stderr, "HOST:PORT")
    missing = run_server(environ, *credentials, "--device", "/nowhere/libcuda.so.1")
    assert_one_line(missing.stderr, "/nowhere/libcuda.so.1", "--device soft")

    (native_dir / "bin" / "harp-gate").unlink()
    gateless = run_server(environ, *credentials, "--listen", "127.0.0.1:0")
    assert_one_line(gateless.stderr, "harp-gate", "harp doctor")


def test_a_worker_that_cannot_start_is_told(
    environ: dict[str, str], pool: Pool, native_dir: Path
) -> None:
    worker = native_dir / "bin" / "harp-worker"
    worker.write_text("#!/bin/sh\necho 'harp-worker: no device' >&2\nexit 1\n")
    done = run_server(environ, "--credentials", str(pool.server), "--listen", "127.0.0.1:0")
    assert done.returncode == 1
    assert_one_line(done.stderr, "ended with status 1: harp-worker: no device", "harp doctor")


def test_what_workers_say_is_logged(start_server: StartServer, native_dir: Path) -> None:
    worker = native_dir / "bin" / "harp-worker"
    worker.rename(worker.with_name("real-worker"))
    say = "printf 'before\\033[31m\\nlong %03000d\\n' 7 >&2"
    worker.write_text(f'#!/bin/sh\n{say}\nexec "${{0%harp-worker}}real-worker" "$@"\n')
    worker.chmod(0o755)
    server = start_server()
    wait_until(lambda: len(server.lines("output")) == 2, "both lines are logged")
    before, long = server.lines("output")
    assert (before["process"], before["text"]) == ("worker", "before [31m")
    assert len(str(long["text"])) == 2000, "a long line is cut"

"""Processes that are short of something: streams, files, threads, sessions."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pool.standins import HARP_RUN, Server, wait_until
from processes.ways import COLUMNS, SECONDS, Children, Programs, Ways

NO_DEVICE = 100


@pytest.mark.parametrize("options", [["--embedded"], ["--direct"], None])
@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams(
    ways: Ways, programs: Programs, tmp_path: Path, options: list[str] | None, closed: str
) -> None:
    """Nothing of HARP's takes the place of a standard stream that is closed, and it stays closed.

    The program writes what it finds to a file that it opens later.
    """
    found = tmp_path / "found"
    words = [*HARP_RUN, *(ways.options("pool") if options is None else options)]
    inside = f'"{programs["streams"]}" "{found}"'
    command = ["sh", "-c", f'exec "$@" -- {inside} {closed}', "sh", *words]
    done = subprocess.run(command, env=ways.plain, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    wanted = "".join(
        "closed " if f"{number}<&-" in closed or f"{number}>&-" in closed else "open "
        for number in range(3)
    )
    assert found.read_text() == wanted + "ok\n"


@pytest.mark.parametrize("limit", [3, 4, 5])
def test_no_files_left(ways: Ways, programs: Programs, limit: int) -> None:
    """A process at its limit of open files hears so, and goes on without a device."""
    done = subprocess.run(
        [programs["limits"], str(limit)],
        env=ways.environ("pool"),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert (done.returncode, done.stdout) == (0, f"cuInit {NO_DEVICE}\n"), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Too many open files" in done.stderr
    assert "ulimit -n" in done.stderr


@pytest.mark.parametrize("column", COLUMNS)
def test_no_threads_left(ways: Ways, programs: Programs, column: str) -> None:
    """Everything works but what needs a thread of its own, and that fails with a line."""
    environ = ways.environ(column)
    environ["LD_PRELOAD"] = f"{programs.library('no_threads')}:{environ['LD_PRELOAD']}"
    done = subprocess.run(
        [programs["limits"], "threads"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == (
        "host function 0\nok\n" if column != "pool" else "host function 304\nok\n"
    )
    told = [line for line in done.stderr.splitlines() if "development device" not in line]
    assert len(told) == 1, done.stderr
    assert "may start no more threads" in told[0]
    assert "ulimit -u" in told[0]


def test_several_programs_at_once(ways: Ways, programs: Programs, children: Children) -> None:
    """Eight programs on one device, each with numbers of its own."""
    before = len(ways.server.lines("session start"))
    started = [children.start([programs["forks"], "once"], ways.environ("pool")) for _ in range(8)]
    for child in started:
        stdout, stderr = child.communicate(timeout=SECONDS)
        assert (child.returncode, stdout) == (0, "ok\n"), stderr
    assert len(ways.server.lines("session start")) == before + 8


def test_a_full_server_says_so(
    ways: Ways, programs: Programs, children: Children, tmp_path: Path
) -> None:
    """One session at a time: the second program gets no device and a reason, the third works."""
    log = tmp_path / "server.log"
    server = Server(ways.server.pool, ways.plain, log, "--max-sessions", "1")
    environ = {**ways.environ("pool"), "HARP_SERVER": server.address}
    try:
        first = children.start([programs["forks"], "once_and_wait"], environ)
        assert first.stdout.readline() == "ok\n"
        refused = children.start([programs["limits"], "none"], environ)
        stdout, stderr = refused.communicate(timeout=SECONDS)
        assert stdout == f"cuInit {NO_DEVICE}\n"
        assert stderr.count("\n") == 1, stderr
        assert "all 1 sessions of the server are in use" in stderr
        wait_until(lambda: bool(server.lines("connection refused")), "the refusal is logged")
        (line,) = server.lines("connection refused")
        assert "all 1 sessions" in str(line["cause"])
        first.communicate("x", SECONDS)
        assert first.returncode == 0
        wait_until(lambda: bool(server.lines("session end")), "the first session ends")
        third = children.start([programs["forks"], "once"], environ)
        stdout, stderr = third.communicate(timeout=SECONDS)
        assert (third.returncode, stdout) == (0, "ok\n"), stderr
    finally:
        assert server.stop() == 0, log.read_text()

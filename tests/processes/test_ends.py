"""The end of a process at any moment: prompt, with its own status, and its worker goes with it."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from pool.standins import HARP_RUN, wait_until
from processes.ways import COLUMNS, SECONDS, SETTLING_SECONDS, Children, Programs, Ways

ENDS = {
    "return": 5,
    "exit": 3,
    "_exit": 4,
    "abort": -signal.SIGABRT,
    "handler": 42,
    "segv": -signal.SIGSEGV,
}
PLACES = ("kernel", "wait", "upload", "download")


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("how", ENDS)
def test_ends_in_the_middle(
    ways: Ways, programs: Programs, children: Children, column: str, how: str
) -> None:
    """All places at once: four programs whose kernels never end share the device."""
    started = [
        children.start([programs["ends"], how, place], ways.environ(column)) for place in PLACES
    ]
    for child, place in zip(started, PLACES, strict=True):
        stdout, stderr = child.communicate(timeout=SECONDS)
        assert (stdout, child.returncode) == ("running\n", ENDS[how]), f"{place}: {stderr}"


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_signals_end_it(
    ways: Ways, programs: Programs, children: Children, column: str, number: signal.Signals
) -> None:
    started = [
        children.start([programs["ends"], "signal", place], ways.environ(column))
        for place in PLACES
    ]
    for child in started:
        assert child.stdout.readline() == "running\n"
        child.send_signal(number)
    for child in started:
        assert child.wait(SECONDS) == -number


def test_the_server_says_what_ended(ways: Ways, programs: Programs) -> None:
    """Goodbyes and deaths differ in its log, and neither is the server's error."""

    def causes(*command: str) -> str:
        before = len(ways.server.lines("session end"))
        subprocess.run(command, env=ways.environ("pool"), capture_output=True, timeout=SECONDS)
        wait_until(
            lambda: len(ways.server.lines("session end")) == before + 1,
            "the session ends",
            SETTLING_SECONDS,
        )
        (end,) = ways.server.lines("session end")[before:]
        assert end["level"] == "info"
        return str(end["cause"])

    assert causes(programs["forks"], "once") == "the client has finished"
    assert causes(programs["ends"], "_exit", "kernel") != "the client has finished"


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize(
    ("how", "status"),
    [("return", 5), ("abort", 128 + signal.SIGABRT), ("segv", 128 + signal.SIGSEGV)],
)
def test_statuses_under_harp_run(
    ways: Ways, programs: Programs, column: str, how: str, status: int
) -> None:
    command = [*HARP_RUN, *ways.options(column), "--", programs["ends"], how, "wait"]
    done = subprocess.run(
        command,
        env=ways.plain,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert (done.returncode, done.stdout) == (status, "running\n"), done.stderr


@pytest.mark.parametrize("column", COLUMNS)
def test_stats_do_not_hold_up_an_exit(
    ways: Ways, programs: Programs, children: Children, column: str
) -> None:
    """The summary is printed though another thread is in the middle of sending for ever."""
    environ = {**ways.environ(column), "HARP_STATS": "1"}
    child = children.start([programs["ends"], "exit", "upload"], environ)
    _, stderr = child.communicate(timeout=SECONDS)
    assert child.returncode == 3
    assert ("calls sent" in stderr) == (column == "pool")


@pytest.mark.parametrize("column", COLUMNS)
def test_signals_in_the_middle(ways: Ways, programs: Programs, column: str) -> None:
    """Two timers, every millisecond, with and without SA_RESTART, and a stop of three seconds."""
    done = subprocess.run(
        [programs["signals"]],
        env=ways.environ(column),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stdout + done.stderr


def test_nothing_is_left(ways: Ways, programs: Programs, children: Children) -> None:
    """Fifty sessions later the server has the files and the children that it had before."""

    def resources() -> tuple[int, int]:
        pid = ways.server.process.pid
        processes = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return len(os.listdir(f"/proc/{pid}/fd")), len(processes)

    environ = ways.environ("pool")
    command = [programs["forks"], "once"]
    subprocess.run(command, env=environ, capture_output=True, timeout=SECONDS)
    # One that waits for the next session, the gate and the cache.
    wait_until(lambda: ways.settled() and resources()[1] == 3, "the server is at rest")
    before = resources()
    for _ in range(10):
        for child in [children.start(command, environ) for _ in range(5)]:
            _, stderr = child.communicate(timeout=SECONDS)
            assert child.returncode == 0, stderr
    wait_until(lambda: ways.settled() and resources() == before, f"back to {before}")

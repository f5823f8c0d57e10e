"""Fork, exec and daemons: what a real driver answers there, and nobody's connection disturbed."""

from __future__ import annotations

import subprocess

import pytest

from pool.standins import HARP_RUN, wait_until
from processes.ways import COLUMNS, HERE, SECONDS, SETTLING_SECONDS, Children, Programs, Ways

NOT_INITIALIZED = 3


def run(ways: Ways, column: str, *command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        env=ways.environ(column),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize(
    "mode", ["after_use", "before_init", "storm", "while_starting", "twice", "in_a_callback"]
)
def test_forks(ways: Ways, programs: Programs, column: str, mode: str) -> None:
    done = run(ways, column, programs["forks"], mode)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stdout + done.stderr
    for line in done.stderr.splitlines():
        assert line.startswith("harp: this process was forked") or "development device" in line


def test_sessions_end_well_whatever_children_do(ways: Ways, programs: Programs) -> None:
    """A child that writes on its parent's connection, or ends it, would show here."""
    before = len(ways.server.lines("session end"))
    run(ways, "pool", programs["forks"], "after_use")
    wait_until(lambda: len(ways.server.lines("session end")) == before + 1, "the one session")
    (end,) = ways.server.lines("session end")[before:]
    assert (end["level"], end["cause"]) == ("info", "the client has finished")


@pytest.mark.parametrize("column", COLUMNS)
def test_every_call_of_a_child(ways: Ways, column: str) -> None:
    """A child of an initialised parent gets NOT_INITIALIZED from every symbol there is."""
    done = run(ways, column, "python3", HERE / "every_call.py")
    assert done.returncode == 0, done.stdout + done.stderr
    names, codes = done.stdout.splitlines()[0], done.stdout.splitlines()[1:]
    assert int(names) > 600
    answered = dict(line.split() for line in codes)
    assert answered == {
        "cuDriverGetVersion": "1",
        "cuGetErrorName": "1",
        "cuGetErrorString": "1",
        "cuGetExportTable": "1",
        "cuGetProcAddress": "1",
        "cuGetProcAddress_v2": "1",
    }


def test_a_killed_parent_ends_its_session_though_a_child_lives(
    ways: Ways, programs: Programs, children: Children
) -> None:
    before = len(ways.server.lines("session end"))
    parent = children.start([programs["forks"], "orphan"], ways.environ("pool"))
    assert parent.stdout.readline() == "child\n"
    parent.kill()
    wait_until(
        lambda: len(ways.server.lines("session end")) == before + 1,
        "the parent's session ends",
        SETTLING_SECONDS,
    )
    parent.stdin.write("x")
    parent.stdin.close()
    assert parent.stdout.read() == "ok\n"


def test_exec_begins_anew(ways: Ways, programs: Programs, children: Children) -> None:
    """The session of what was there before ends, though the process lives and a kernel ran."""
    before = len(ways.server.lines("session end"))
    child = children.start([programs["forks"], "replaced"], ways.environ("pool"))
    assert child.stdout.readline() == "ok\n"
    wait_until(
        lambda: len(ways.server.lines("session end")) == before + 1,
        "the first program's session ends",
        SETTLING_SECONDS,
    )
    assert child.poll() is None
    child.stdin.write("x")
    child.stdin.close()
    assert child.wait(SECONDS) == 0


def start_daemon(
    ways: Ways, programs: Programs, children: Children, *options: str
) -> subprocess.Popen[str]:
    """Has a daemon started by a program under harp-run, which then ends."""
    command = [*HARP_RUN, *options, "--", programs["forks"], "daemon_later"]
    started = children.start(command, ways.plain)
    assert started.stdout.readline() == "daemon\n"
    assert started.wait(SECONDS) == 0
    return started


def test_a_daemon_goes_on_with_a_server(ways: Ways, programs: Programs, children: Children) -> None:
    daemon = start_daemon(ways, programs, children, *ways.options("pool"))
    stdout, stderr = daemon.communicate("x", SECONDS)
    assert stdout == "cuInit 0\nok\n", stderr


def test_a_daemon_without_a_server_is_told_why(
    ways: Ways, programs: Programs, children: Children
) -> None:
    """The embedded pool ends with the run that it belongs to."""
    daemon = start_daemon(ways, programs, children, "--embedded")
    stdout, stderr = daemon.communicate("x", SECONDS)
    assert stdout == "cuInit 100\n"
    assert stderr.count("\n") == 1, stderr
    assert "pool of this harp-run has ended with it" in stderr
    assert "harp server" in stderr


@pytest.mark.parametrize("column", COLUMNS)
def test_a_pipeline(ways: Ways, programs: Programs, column: str) -> None:
    """Every program of a shell's pipeline has a device, and the shell's status is passed on."""
    once = f"{programs['forks']} once"
    script = f"{once} | ({once}; cat) | ({once}; cat); exit 9"
    command = [*HARP_RUN, *ways.options(column), "--", "sh", "-c", script]
    done = subprocess.run(
        command,
        env=ways.plain,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert (done.returncode, done.stdout) == (9, "ok\n" * 3), done.stderr

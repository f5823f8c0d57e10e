"""Python's ways to make processes, with CuPy in them, directly and through the pool."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from clients.environment import clients_python
from processes.ways import COLUMNS, SECONDS, Ways

SCRIPT = Path(__file__).parents[1] / "clients" / "cupy_processes.py"


def run(ways: Ways, column: str, mode: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(clients_python()), str(SCRIPT), mode],
        env=ways.environ(column),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
    )


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("mode", ["fork_before", "afresh"])
def test_processes(ways: Ways, column: str, mode: str) -> None:
    done = run(ways, column, mode)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stdout + done.stderr


@pytest.mark.parametrize("column", COLUMNS)
def test_fork_after_use(ways: Ways, column: str) -> None:
    """CuPy reports what NVIDIA's driver answers; what it fails to free at its end is no news."""
    done = run(ways, column, "fork_after")
    assert done.returncode == 0, done.stdout + done.stderr
    error, last = done.stdout.splitlines()
    assert error == "CUDARuntimeError: cudaErrorInitializationError: initialization error"
    assert last == "ok"
    assert "forked" not in done.stderr
    assert "panicked" not in done.stderr


@pytest.mark.parametrize("column", COLUMNS)
def test_interrupts(ways: Ways, column: str) -> None:
    done = run(ways, column, "interrupted")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "synchronise interrupted\ncopy interrupted\nok\n"


@pytest.mark.parametrize("column", COLUMNS)
def test_leaving_at_once(ways: Ways, column: str) -> None:
    done = run(ways, column, "leave")
    assert (done.returncode, done.stdout) == (12, ""), done.stderr

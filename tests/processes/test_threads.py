"""Threads that end in the middle of things, and code that runs before main and after it."""

from __future__ import annotations

import subprocess

import pytest

from processes.ways import COLUMNS, SECONDS, Programs, Ways

WANTED = {
    "cancelled": "ok\n",
    "main_thread_ends": "ok\n",
    "many_threads": "ok\n",
    "closed": "ok\n",
    "handlers": "registered after the first use: 0\nregistered before the first use: 4\n",
    "constructor": "before main\nmain\nafter main: 4\n",
}


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("mode", WANTED)
def test_threads(ways: Ways, programs: Programs, column: str, mode: str) -> None:
    done = subprocess.run(
        [programs["threads"]],
        env={**ways.environ(column), "MODE": mode, "HARP_LOG": "quiet"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, WANTED[mode], "")

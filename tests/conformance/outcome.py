"""Runs a program to its end and keeps what it left behind.

Standard library only: it is part of the bundle for machines with a GPU.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

SECONDS = 120.0
"""Longest that one program may run before it counts as hanging."""


class Outcome(NamedTuple):
    """What a program left behind."""

    status: int
    stdout: str
    stderr: str

    @property
    def complaints(self) -> str:
        """What is on stderr but for HARP's own lines, which say what a column is."""
        lines = self.stderr.splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith(("harp: ", "harp-run: ")))

    def told(self) -> str:
        """All of it, for a failure's report."""
        return f"status {self.status}\n--- stdout\n{self.stdout}--- stderr\n{self.stderr}"


def finish(command: list[str], environ: Mapping[str, str]) -> Outcome:
    """Runs a command to its end; one that does not end is killed with all it started."""
    process = subprocess.Popen(
        command,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        stderr += f"\n(killed after {SECONDS:.0f} s)\n"
    return Outcome(process.returncode, stdout, stderr)

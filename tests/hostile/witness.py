"""What must not change while a server is under fire: its size and its other sessions."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from hostile.rogue import under
from pool.standins import BOUND, Server, wait_until

NEIGHBOUR = Path(__file__).with_name("neighbour.py")

AGENT_BYTES = 300 << 20
"""Most resident memory of the agent; it starts with about 60 MiB."""

ALL_BYTES = 6 << 30
"""Most of all processes of a server together."""

DESCRIPTORS = 400
"""Most open descriptors of the agent: 64 sessions with a socket and a pipe each, and its own."""


class Neighbour:
    """A program with a session of its own: it checks its numbers over and over, and counts."""

    def __init__(self, server: Server, environ: Mapping[str, str]) -> None:
        command = under(server.address, server.pool, [sys.executable, NEIGHBOUR])
        self.process = subprocess.Popen(
            command,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def check(self) -> None:
        assert self.process.poll() is None, self.process.communicate()

    def finish(self) -> None:
        """It has gone on all the time, and ends well."""
        stdout, stderr = self.process.communicate(timeout=BOUND)
        assert self.process.returncode == 0, stdout + stderr
        rounds = int(stdout.split()[-1])
        assert rounds > 3, stdout


class Witness:
    """Looks at a server's processes from outside."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.pid = server.process.pid
        self.descriptors = self._descriptors()

    def look(self) -> None:
        """Fails when memory or descriptors are beyond their bounds."""
        time.sleep(0.5)
        assert self.server.process.poll() is None, self.server.log.read_text()[-2000:]
        assert resident(self.pid) < AGENT_BYTES
        assert sum(map(resident, [self.pid, *children(self.pid)])) < ALL_BYTES
        assert self._descriptors() < DESCRIPTORS

    def settle(self) -> None:
        """Everything that sessions took is given back."""
        wait_until(
            lambda: self._descriptors() <= self.descriptors + 4,
            f"as few descriptors as before ({self.descriptors})",
            60,
        )

    def _descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def resident(pid: int) -> int:
    """Bytes of memory that a process holds; 0 for one that has just ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")

"""A program that queues faster than the device works is held back: neither its memory nor its
worker's grows with what it wants to queue."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pool.standins import ASKING_NOTHING, HARP_RUN, Pool, Server, wait_until

PROGRAM = [sys.executable, str(Path(__file__).with_name("queues_for_ever.py"))]
CALLS = 1_000_000
MIB = 1 << 20

PROGRAM_GROWS = 40 * MIB
WORKER_GROWS = {"kernels": 48 * MIB, "fills": 112 * MIB, "uploads": 160 * MIB}
"""A million calls would take ten times as much and more. 64 MiB of what is filled are the device's
memory; as much is kept of what is uploaded, and the allocator keeps some of what was freed."""

LOOKS = 4.0
"""Seconds that the memory is looked at once the program is held back. Nothing depends on them."""


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    """The stand-ins' environment with the real parts in their place."""
    return {k: v for k, v in environ.items() if k != "HARP_NATIVE_DIR"} | ASKING_NOTHING


def resident(process: int) -> int:
    """Resident bytes of a process."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise AssertionError(f"process {process} is gone")


@pytest.mark.parametrize("work", ["kernels", "fills", "uploads"])
def test_memory_is_bounded_where_the_device_is_slower(
    environ: dict[str, str], pool: Pool, start_server: Callable[..., Server], work: str
) -> None:
    server = start_server()
    command = [*HARP_RUN, "--server", server.address, "--credentials", str(pool.user), "--"]
    queued = 0
    with subprocess.Popen(
        [*command, *PROGRAM, work], env=environ, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None

        def count() -> None:
            nonlocal queued
            for line in run.stdout or ():
                queued = int(line)

        threading.Thread(target=count, daemon=True).start()
        try:
            wait_until(lambda: bool(server.lines("session start")), "the session begins")
            (session,) = server.lines("session start")
            both = (int(str(session["pid"])), int(str(session["worker"])))
            before = [resident(process) for process in both]
            most = before
            until = time.monotonic() + LOOKS
            while time.monotonic() < until:
                time.sleep(0.1)
                most = [max(pair) for pair in zip(most, map(resident, both), strict=True)]
            grown = [now - then for now, then in zip(most, before, strict=True)]
            assert queued < CALLS, "the device was not slower"
        finally:
            run.kill()
    assert grown[0] < PROGRAM_GROWS, f"the program grew by {grown[0] / MIB:.0f} MiB"
    assert grown[1] < WORKER_GROWS[work], f"the worker grew by {grown[1] / MIB:.0f} MiB"

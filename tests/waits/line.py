"""A network in front of a server: it has a round trip, and counts how often a client takes one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clients.toolkit import CHECKOUT


@dataclass
class Line:
    """`address` (HOST:PORT) takes the place of the server's."""

    address: str
    process: subprocess.Popen[str]

    def turns(self) -> int:
        """How often something went to the server after something had come from it: the round trips
        of a client that does one thing after the other."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("carried\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline().split()[2])


@contextmanager
def line(upstream: str, round_trip_ms: int) -> Iterator[Line]:
    """A line to `upstream` (HOST:PORT), of the program that `make bench` measures with."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or CHECKOUT / "target")
    program = target / "release" / "harp-baseline"
    command = [program, "link", upstream, str(round_trip_ms * 1000), "0"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield Line(f"127.0.0.1:{process.stdout.readline().strip()}", process)

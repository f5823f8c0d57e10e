"""A network in front of a server: it delays, has a rate, keeps the order and loses nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from driven import Driven

ROUND_TRIPS_MS = (0, 0.1, 1, 10, 30)
"""Those that rows are measured at."""


@dataclass
class Link:
    """A running link. `address` (HOST:PORT) takes the place of the server's."""

    address: str
    program: Driven

    def carried(self) -> tuple[int, int, int]:
        """Bytes towards the server, bytes back, and how often something went up after something had
        come down: the round trips of a client that waits for each answer."""
        up, down, turns = map(int, self.program.ask("carried"))
        return up, down, turns


@contextmanager
def link(
    baseline: Path, upstream: str, round_trip_ms: float = 0, bits_per_s: int = 0
) -> Iterator[Link]:
    """A link to `upstream` (HOST:PORT); without a rate it is as fast as the machine."""
    command = [baseline, "link", upstream, round(round_trip_ms * 1000), bits_per_s]
    program = Driven(command, os.environ)
    try:
        yield Link(f"127.0.0.1:{program.said()[0]:.0f}", program)
    finally:
        program.close()

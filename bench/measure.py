"""Numbers gathered over the rounds of a run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

KIB, MIB = 1 << 10, 1 << 20


@dataclass
class Samples:
    """Numbers gathered over the rounds, by name."""

    found: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, values: Iterable[float]) -> None:
        self.found.setdefault(name, []).extend(values)

    def median(self, name: str) -> float:
        return statistics.median(self.found[name])

    def best(self, name: str) -> float:
        return max(self.found[name])


def undisturbed(batches: Sequence[float]) -> float:
    """What a batch takes that other threads do not get in the way of: of launches the median
    spreads by more than what a few nanoseconds more for each make."""
    return statistics.quantiles(batches, n=10)[0]


def timed(action: Callable[[], object], times: int = 3) -> list[float]:
    """Milliseconds of each run but the first."""
    found = []
    for run in range(times + 1):
        start = time.perf_counter()
        action()
        if run:
            found.append((time.perf_counter() - start) * 1e3)
    return found

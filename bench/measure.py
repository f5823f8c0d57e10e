"""What `make bench` measures, round by round, each beside its baseline."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy
from driven import Driven

KIB, MIB = 1 << 10, 1 << 20


@dataclass
class Sides:
    """The programs of one run: the client in the pool, the client on the soft GPU directly, and the
    raw sockets. `fresh` starts another client in the pool, `worker_rss` looks at its worker."""

    pool: Driven
    direct: Driven
    raw: Driven
    fresh: Callable[[], Driven]
    worker_rss: Callable[[], float]


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


def memory(sides: Sides, samples: Samples) -> None:
    """Before anything large is copied: what a session costs each side."""
    sides.pool.ask("oneway", 100, 10)
    samples.add("client_rss_mb", sides.pool.ask("memory"))
    samples.add("worker_rss_mb", [sides.worker_rss()])


def one_round(sides: Sides, samples: Samples, quick: bool) -> None:
    """One round of everything. Sides of one comparison follow each other at once."""
    scale = 4 if quick else 1
    fresh = sides.fresh()
    samples.add("first_call_ms", fresh.ask("start"))
    fresh.close()
    for side, name in ((sides.pool, "pool"), (sides.direct, "direct")):
        samples.add(f"oneway {name}", side.ask("oneway", 200, 200 // scale))
        samples.add(f"launches {name}", side.ask("launches", 200_000 // scale))
    for _ in range(8):
        samples.add("ping 64", sides.raw.ask("ping", 64, 400 // scale))
        samples.add("wait pool", sides.pool.ask("wait", 400 // scale))
        samples.add("synchronize pool", sides.pool.ask("synchronize", 400 // scale))
    for label, size, count in (("64k", 64 * KIB, 200), ("1m", MIB, 60), ("256m", 256 * MIB, 3)):
        count = max(1, count // scale)
        samples.add(f"send {label}", sides.raw.ask("send", size, count))
        samples.add(f"h2d {label}", sides.pool.ask("h2d", size, count))
        samples.add(f"receive {label}", sides.raw.ask("receive", size, count))
        samples.add(f"d2h {label}", sides.pool.ask("d2h", size, count))
    kernels(sides, samples)


def kernels(sides: Sides, samples: Samples) -> None:
    """The soft GPU's own speed, beside NumPy on the same numbers."""
    n = 4 * MIB
    samples.add("saxpy ms", sides.direct.ask("saxpy", n, 3))
    x, y, out = (numpy.arange(n, dtype="f4") for _ in range(3))
    a = numpy.float32(2)

    def saxpy() -> None:
        numpy.multiply(x, a, out=out)
        numpy.add(out, y, out=out)

    samples.add("numpy saxpy ms", timed(saxpy))
    samples.add("sum ms", sides.direct.ask("sum", n, 3))
    samples.add("numpy sum ms", timed(x.sum))
    size = 512
    gflop = 2 * size**3 / 1e9
    samples.add("matmul gflops", (gflop / (ms / 1e3) for ms in sides.direct.ask("matmul", size, 3)))


def timed(action: Callable[[], object], times: int = 3) -> list[float]:
    """Milliseconds of each run but the first."""
    found = []
    for run in range(times + 1):
        start = time.perf_counter()
        action()
        if run:
            found.append((time.perf_counter() - start) * 1e3)
    return found

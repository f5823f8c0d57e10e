"""How soon a call that nobody waits for is on the device, what it costs the worker, and whether a
call that is waited for is held up by another thread's."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import fmean

from measure import Samples
from report import Row, row
from sides import Sides

REACH = {"alone": (2000, 1, 200), "often": (100, 1, 800), "burst": (2000, 20, 200)}
"""Microseconds between batches, calls in a batch, of which the last is looked at, and batches: a
call after a pause; calls that come when the one before is there; the last of a burst."""

AWAKE = ("often",)
"""Of these nothing has gone to sleep between two batches."""

REACH_MAX_US = 50

LAUNCHES = 200_000
TURNS = 30_000_000
"""Of a kernel that takes half a second of one core."""

ONSET_S = 0.05
"""Until it runs."""


def measure(sides: Sides, samples: Samples, scale: int) -> None:
    for name, (gap, batch, count) in REACH.items():
        for side, which in ((sides.pool, "pool"), (sides.direct, "direct")):
            samples.add(f"reach {name} {which}", side.ask("reach", gap, batch, count // scale))
    gap, _, count = REACH["burst"]
    samples.add("wake", sides.raw.ask("wake", gap, count // scale))
    worker, count = sides.first_worker(), LAUNCHES // scale
    before = own_ns(worker)
    sides.pool.ask("launches", count)
    spent = (own_ns(worker) - before) / count
    samples.add("worker launch ns", [spent - sides.direct.ask("launch_cpu", count)[0]])
    # Means: where three threads want two cores, a socket that is polled for is as quick as ever or
    # waits for milliseconds, and its median is one of the two.
    samples.add("beside pool", [fmean(sides.pool.ask("beside", TURNS, 1600 // scale))])
    sides.direct.tell("beside", TURNS, 1)
    time.sleep(ONSET_S)
    samples.add("beside ping", [fmean(sides.raw.ask("ping", 64, 1600 // scale))])
    sides.direct.said("beside")


def own_ns(worker: int) -> int:
    """CPU time of a worker's threads without the soft GPU's, which run kernels."""
    spent = 0
    for thread in Path(f"/proc/{worker}/task").iterdir():
        if not (thread / "comm").read_text().startswith("harp-soft"):
            spent += int((thread / "schedstat").read_text().split()[0])
    return spent


def rows(samples: Samples) -> list[Row]:
    of = samples.median
    # Where all have slept, the road to the device begins with a core that has halted: how late that
    # runs belongs to the machine, and goes to no side.
    reach = [
        row(
            f"oneway_{name}_reaches_us",
            of(f"reach {name} pool") - of(f"reach {name} direct"),
            "us",
            at_most=round(REACH_MAX_US + (0 if name in AWAKE else of("wake"))),
        )
        for name in REACH
    ]
    return [
        *reach,
        row("idle_core_wakes_us", of("wake"), "us"),
        row("worker_launch_added_ns", of("worker launch ns"), "ns", at_most=500),
        row("wait_beside_kernel_vs_tcp", of("beside pool"), "us", of("beside ping"), at_most=1.35),
    ]

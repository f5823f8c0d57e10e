"""What a session keeps resident on each side: after start and a thousand launches, and while the
device is slower than the program."""

from __future__ import annotations

from pathlib import Path

from measure import Samples
from report import Row, row
from sides import Sides

LAUNCHES = 300_000
"""Of a kernel that takes longer than its launch."""

COPIES = 32
"""Of 64 MiB each."""


def resident(process: int, which: str = "VmRSS") -> float:
    """Resident MiB of a process; `VmHWM`: the most since `/proc/PID/clear_refs` was told 5."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{which}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no memory of process {process}")


def once(sides: Sides, samples: Samples) -> None:
    """What is added while the device has more to do than it gets done."""
    fresh = sides.in_pool()
    fresh.ask("start")
    before, worker = fresh.ask("backlog_begin")[0], sides.last_worker()
    Path(f"/proc/{worker}/clear_refs").write_text("5")
    worker_before = resident(worker)
    most = fresh.ask("backlog", LAUNCHES, COPIES)[0]
    samples.add("client backlog", [most - before])
    samples.add("worker backlog", [resident(worker, "VmHWM") - worker_before])
    fresh.close()


def measure(sides: Sides, samples: Samples, scale: int) -> None:
    fresh = sides.in_pool()
    fresh.ask("start")
    fresh.ask("oneway", 100, 10)
    samples.add("client_rss_mb", fresh.ask("memory"))
    samples.add("worker_rss_mb", [resident(sides.last_worker())])
    fresh.close()


def rows(samples: Samples) -> list[Row]:
    return [
        row("client_rss_mb", samples.median("client_rss_mb"), "MiB", at_most=40),
        row("worker_rss_mb", samples.median("worker_rss_mb"), "MiB", at_most=30),
        row("client_backlog_mb", samples.median("client backlog"), "MiB", at_most=40),
        row("worker_backlog_mb", samples.median("worker backlog"), "MiB", at_most=30),
    ]

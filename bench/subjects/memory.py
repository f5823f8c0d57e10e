"""What a session keeps resident on each side, after start and a thousand launches."""

from __future__ import annotations

from pathlib import Path

from measure import Samples
from report import Row, row
from sides import Sides


def resident(process: int) -> float:
    """Resident MiB of a process."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no memory of process {process}")


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
    ]

"""Measures an idle pool: how long an attach takes from the call until the lease can be used, beside
a bare call to the scheduler and a durable write of the same disk.

    python bench/attach.py [--rounds N]

Real processes: a scheduler with SQLite, one server with soft GPUs. The rounds of the three are
interleaved. "Usable" is when a watcher of the lease is told that its server has admitted it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from harp_api.control.v1 import pool_pb2 as api
from harp_client.scheduler import Scheduler, request_id
from scheduler.cluster import Cluster

ROUNDS = 300
USABLE = "Available"


def attach(scheduler: Scheduler, watcher: Scheduler) -> float:
    """Seconds until a new lease can be used; it is detached again, off the clock."""
    began = time.perf_counter()
    request = api.AttachRequest(
        request_id=request_id(), tenant="default", demand=api.Demand(compute=10), host="host"
    )
    lease = scheduler.call("Attach", request)
    if lease.state != USABLE:
        for now in watcher.watch("WatchLease", api.WatchLeaseRequest(lease=lease.id)):
            if now.state == USABLE:
                break
    took = time.perf_counter() - began
    scheduler.call("Detach", api.DetachRequest(request_id=request_id(), lease=lease.id))
    return took


def call(scheduler: Scheduler) -> float:
    """Seconds of a call that changes nothing."""
    began = time.perf_counter()
    scheduler.call("Get", api.GetRequest(kinds=["profiles"]))
    return time.perf_counter() - began


def durable_write(file: int) -> float:
    """Seconds of 4 KiB written and synchronised to the disk that holds the database."""
    began = time.perf_counter()
    os.pwrite(file, b"x" * 4096, 0)
    os.fdatasync(file)
    return time.perf_counter() - began


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures attaching on an idle pool.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="harp-bench-") as folder:
        cluster = Cluster(Path(folder))
        try:
            cluster.scheduler()
            cluster.server("gpu1", 2)
            scheduler = Scheduler(cluster.schedulers, str(cluster.folder / "admin"))
            watcher = scheduler.again()
            file = os.open(cluster.folder / "written", os.O_RDWR | os.O_CREAT)
            measured: dict[str, Callable[[], float]] = {
                "attach, call to usable": lambda: attach(scheduler, watcher),
                "a call that changes nothing": lambda: call(scheduler),
                "a durable write of 4 KiB": lambda: durable_write(file),
            }
            times: dict[str, list[float]] = {name: [] for name in measured}
            for _ in range(rounds):
                for name, measure in measured.items():
                    times[name].append(measure())
        finally:
            cluster.close()
    print(f"{'':30} {'p50':>9} {'p99':>9}   of {rounds} rounds")
    for name, values in times.items():
        p50, p99 = quantile(values, 0.5), quantile(values, 0.99)
        print(f"{name:30} {1000 * p50:6.2f} ms {1000 * p99:6.2f} ms")


if __name__ == "__main__":
    main()

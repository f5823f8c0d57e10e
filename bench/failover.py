"""Measures how long a large pool is without a leader: from kill -9 of the one that leads until the
other one has granted.

    python bench/failover.py [--servers N] [--rounds N]

Two schedulers on one PostgreSQL that waits for its disk. The pool has 12,500 servers with 8 devices
and two leases of half of each, which are away; and one that is there, on whose device is granted.
Printed are, for each round, when the other scheduler took the lead (its line in the log), and when
a caller that goes on asking had its first grant.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from harp_api.control.v1 import pool_pb2 as api
from harp_client.errors import HarpError
from harp_client.scheduler import Scheduler, request_id
from harp_scheduler.core.book import Key, Number, Record
from harp_scheduler.core.model import Accelerator, Lease, Server, State
from harp_scheduler.core.placement.model import Demand, Slice
from harp_scheduler.store.store import Store
from scheduler.cluster import Cluster
from scheduler.store.postgres import Postgres, binaries

SERVERS, DEVICES, ROUNDS = 12_500, 8, 4
TOGETHER = 500
"""Servers that are stored in one transaction."""

GIB = 1 << 30
BOUND = 120.0
NAMES = ("scheduler-1", "scheduler-2")


def fill(store: Store, term: int, servers: int) -> int:
    """Servers, their devices, and two leases of each; how many leases."""
    number = 0
    for first in range(0, servers, TOGETHER):
        changes: dict[Key, Record | None] = {}
        for server in range(first, min(first + TOGETHER, servers)):
            name = f"server{server}"
            changes["Server", name] = Server(name, f"{name}:7443", (("rack", f"r{server // 40}"),))
            for ordinal in range(DEVICES):
                key = f"{name}/{ordinal}"
                labels = (("driver", "580.1"), ("uuid", f"GPU-{server * DEVICES + ordinal:032x}"))
                changes["Accelerator", key] = Accelerator(
                    key, name, ordinal, "gpu", "h100", 80 * GIB, labels, version=2
                )
                for _ in range(2):
                    number += 1
                    changes["Lease", f"l-{number:012x}"] = lease(number, key)
        store.commit(term, changes, [Number("epoch", number), Number("order", number)])
    return number


def lease(number: int, device: str) -> Lease:
    """An attachment that holds half of a device."""
    name = f"l-{number:012x}"
    return Lease(
        name,
        "default",
        f"spiffe://lab/host/host{number}",
        Demand(memory=40 * GIB, compute=500),
        number,
        name=name,
        host=f"host{number}",
        users=("spiffe://lab/tenant/default/user/alice",),
        state=State.AVAILABLE,
        slices=(Slice(device, 40 * GIB, 500),),
        epoch=number,
    )


def granted(scheduler: Scheduler, deadline: float) -> None:
    """Goes on asking until it has a grant, and gives that back."""
    asked = api.AttachRequest(
        request_id=request_id(), tenant="default", demand=api.Demand(compute=10), host="host"
    )
    while True:
        try:
            found = scheduler.call("Attach", asked)
            break
        except HarpError:
            assert time.time() < deadline, "nobody leads"
    if not found.targets:
        watched = scheduler.watch("WatchLease", api.WatchLeaseRequest(lease=found.id))
        next(lease for lease in watched if lease.targets)
    back = api.DetachRequest(request_id=request_id(), lease=found.id, how=2)
    scheduler.call("Detach", back)


def led_at(cluster: Cluster, name: str) -> float:
    """When a scheduler last took the lead; 0 where it never did."""
    lines = [json.loads(line) for line in cluster.log(name).splitlines() if line.startswith("{")]
    times = [line["timestamp"] for line in lines if line["event"] == "leads"]
    return datetime.fromisoformat(times[-1]).timestamp() if times else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures a failover at the size of a large pool.")
    parser.add_argument("--servers", type=int, default=SERVERS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    programs = binaries()
    if programs is None:
        sys.exit("bench/failover.py: there is no PostgreSQL here: apt-get install postgresql")
    postgres = Postgres(programs, durable=True)
    with tempfile.TemporaryDirectory(prefix="harp-failover-") as folder:
        url = postgres.new_database()
        cluster = Cluster(Path(folder), url, grace=3600.0)
        try:
            store = Store.open(url)
            term = store.lead("bench")
            assert term is not None
            leases = fill(store, term, options.servers)
            store.close()
            for name in NAMES:
                cluster.scheduler(name)
                cluster.wait(lambda: bool(led_at(cluster, NAMES[0])), "the first leads", BOUND)
            cluster.server("gpu1")
            print(f"{options.servers * DEVICES} devices, {leases} leases")
            scheduler = Scheduler(cluster.schedulers, str(cluster.folder / "admin"))
            granted(scheduler, time.time() + BOUND)
            for _ in range(options.rounds):
                leads, waits = sorted(NAMES, key=lambda name: -led_at(cluster, name))
                killed = time.time()
                cluster.kill(leads)
                granted(scheduler, killed + BOUND)
                took = time.time() - killed
                print(
                    f"{waits} leads after {led_at(cluster, waits) - killed:5.2f} s, "
                    f"the first grant after {took:5.2f} s",
                    flush=True,
                )
                cluster.scheduler(leads)
            scheduler.close()
        finally:
            cluster.close()
            postgres.remove()


if __name__ == "__main__":
    main()

"""Measures the scheduler's core at the size of a large pool: memory, grants, heartbeats.

    python bench/scale.py [--servers N] [--leases N]

A pool of 12,500 servers with 8 devices each is filled with leases of half a device, which their
servers admit and report; then every server reports again, as it does every two seconds. Printed
are CPU times of the core, without network and database (bench/store.py, bench/attach.py).
"""

from __future__ import annotations

import argparse
import gc
import resource
import time

from harp_api.control.v1 import agent_pb2 as agent
from harp_scheduler.core.events import Asked, Connected, Reported, TenantSet
from harp_scheduler.core.model import Quota
from harp_scheduler.core.placement.model import Demand
from harp_scheduler.core.pool import Pool
from harp_server.admission import Admission

SERVERS, DEVICES, LEASES = 12_500, 8, 200_000
HEARTBEAT = 2.0
GIB = 1 << 30


def resident() -> float:
    """Most MiB that this process had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures the core at the size of a large pool.")
    parser.add_argument("--servers", type=int, default=SERVERS)
    parser.add_argument("--leases", type=int, default=LEASES)
    options = parser.parse_args()
    empty = resident()
    pool, now = Pool(1, 0.0), 0.0
    pool.handle(TenantSet("t", Quota()), now)
    labels = {"compute-capability": "9.0", "driver": "580.1"}
    devices = [
        agent.Device(ordinal=n, kind="gpu", model="h100", memory=80 * GIB, labels=labels)
        for n in range(DEVICES)
    ]
    agents: dict[str, Admission] = {}
    began = time.process_time()
    for number in range(options.servers):
        name = f"server{number}"
        agents[name] = Admission(dict.fromkeys(range(DEVICES), 80 * GIB), now)
        register = agent.Register(
            address=f"{name}:7443", devices=devices, report=agents[name].register(now)
        )
        for server, orders in pool.handle(Connected(name, register), now).orders.items():
            agents[server].take_orders(orders)
    connected = time.process_time() - began

    demand = Demand(kind="gpu", compute=500)
    began = time.process_time()
    reports = 0
    for number in range(options.leases):
        asked = Asked("me", f"r{number}", f"l-{number:012x}", "t", demand, host=f"host{number}")
        for server, orders in pool.handle(asked, now).orders.items():
            agents[server].take_orders(orders)
            pool.handle(Reported(server, agents[server].report(now)), now)
            reports += 1
    granted = time.process_time() - began
    gc.collect()
    gc.freeze()

    began = time.process_time()
    for server, admission in agents.items():
        pool.handle(Reported(server, admission.report(now)), now)
    heard = time.process_time() - began
    leases = sum(bool(lease.slices) for lease in pool.book.leases.values())
    print(f"{options.servers * DEVICES} devices of {options.servers} servers, {leases} leases")
    print(f"memory                 {resident():8.0f} MiB with the servers' side, {empty:.0f} empty")
    print(f"a server that connects {1e3 * connected / options.servers:8.2f} ms")
    print(f"a grant, and its report{1e3 * granted / options.leases:8.2f} ms")
    print(f"a heartbeat            {1e3 * heard / options.servers:8.2f} ms")
    share = heard / options.servers * 10_000 / HEARTBEAT
    print(f"10,000 agents' heartbeats take {100 * share:.0f} % of one core")


if __name__ == "__main__":
    main()

"""What placement costs in a large pool: decisions a second, their times, memory.

    python bench/placement.py [--devices 100000] [--decisions 30000]

Servers of eight devices, of four models and sixteen racks, are filled to nine tenths with the
demands of a made-up workload, and then one lease ends for each that begins. A decision is `place`
and `take`, or the refusal; what ends is not counted. Times are CPU time, less what reading it
takes, so that they hold on a busy machine too; the wall's are beside them.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from harp_scheduler.core.placement.engine import Placement
from harp_scheduler.core.placement.model import WHOLE, Demand, Device, Machine, Placed
from harp_scheduler.core.placement.workload import Workload

GIB = 1 << 30
MODELS = (("L4", 24), ("A100", 80), ("H100", 80), ("H200", 141))
"""Name and GiB."""

FULL = 0.9
WARM_UP = 2_000
"""Demands that the workload is learned from."""


@dataclass(slots=True)
class Times:
    """Seconds of each decision."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def row(self, what: str) -> str:
        cpu, wall = sorted(self.cpu), sorted(self.wall)
        return (
            f"{what:<28}{len(cpu) / sum(cpu):>12,.0f}/s"
            f"{at(cpu, 0.5):>10.3f}{at(cpu, 0.99):>10.3f}{cpu[-1] * 1e3:>10.3f} ms"
            f"{len(wall) / sum(wall):>12,.0f}/s{at(wall, 0.99):>10.3f} ms"
        )


def at(ordered: list[float], share: float) -> float:
    """The quantile in milliseconds."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3


def sizes(draw: random.Random) -> Demand:
    """A demand of the made-up workload: a dozen usual sizes, and one in 50 of a size of its own."""
    if draw.random() < 0.02:
        return Demand(memory=draw.randrange(1, 20) * GIB, compute=10 * draw.randrange(1, 80))
    usual = draw.choices(
        (
            Demand(),
            Demand(compute=500),
            Demand(compute=250),
            Demand(compute=125),
            Demand(compute=300, memory=16 * GIB),
            Demand(compute=100, memory=8 * GIB),
            Demand(models=("H100", "H200")),
            Demand(models=("L4",), compute=500),
            Demand(count=2),
            Demand(count=4),
            Demand(count=8, models=("H100",)),
            Demand(count=2, compute=500),
        ),
        (30, 14, 10, 8, 8, 8, 8, 5, 4, 2, 1, 2),
    )
    return usual[0]


def pool(devices: int) -> list[Machine]:
    machines = []
    for number in range(devices // 8):
        model, memory = MODELS[number % len(MODELS)]
        name = f"server{number:06}"
        machines.append(
            Machine(
                name,
                tuple(
                    Device(f"{name}/{slot}", name, "gpu", model, memory * GIB) for slot in range(8)
                ),
                {"rack": f"r{number % 16}"},
            )
        )
    return machines


def reading() -> float:
    """Seconds of CPU time that reading the CPU time takes: a system call, dear on some machines."""
    taken = []
    for _ in range(500):
        began = time.process_time()
        taken.append(time.process_time() - began)
    return sorted(taken)[len(taken) // 2]


READING = reading()


def decide(placement: Placement, demand: Demand, times: Times | None) -> Placed | None:
    cpu, wall = time.process_time(), time.perf_counter()
    found = placement.place(demand)
    if isinstance(found, Placed):
        placement.take(found)
    if times is not None:
        times.wall.append(time.perf_counter() - wall)
        times.cpu.append(max(0.0, time.process_time() - cpu - READING))
    return found if isinstance(found, Placed) else None


def resident() -> float:
    """MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=100_000)
    parser.add_argument("--decisions", type=int, default=30_000)
    options = parser.parse_args()
    draw = random.Random(7)
    workload = Workload()
    for _ in range(WARM_UP):
        workload.observe(sizes(draw))
    machines = pool(options.devices)
    before = resident()
    placement = Placement(workload.typical())
    for machine in machines:
        placement.update(machine)
    leases: list[Placed] = []
    asked, capacity = 0, WHOLE * options.devices
    filling, steady, labelled, refused = Times(), Times(), Times(), Times()
    while asked < FULL * capacity:
        demand = sizes(draw)
        found = decide(placement, demand, filling)
        if found is not None:
            leases.append(found)
            asked += demand.count * demand.compute
    print(f"[placement] filled with {len(leases)} leases", file=sys.stderr, flush=True)
    for _ in range(options.decisions):
        ending = draw.randrange(len(leases))
        leases[ending], leases[-1] = leases[-1], leases[ending]
        placement.give_back(leases.pop())
        found = decide(placement, sizes(draw), steady)
        if found is not None:
            leases.append(found)
    print("[placement] with labels, and refusals", file=sys.stderr, flush=True)
    for number in range(1_000):
        rack = Demand(compute=250, labels=(("rack", f"r{number % 16}"),))
        if decide(placement, rack, labelled) is None:
            break
        decide(placement, Demand(count=16, models=("none",)), refused)
    print(f"{'':<28}{'decisions':>14}{'p50':>10}{'p99':>10}{'most':>13}{'wall':>14}{'p99':>13}")
    print(filling.row("filling to nine tenths"))
    print(steady.row("one ends, one begins"))
    print(labelled.row("with a label"))
    print(refused.row("refused"))
    used = resident() - before
    print(f"memory: {used:.0f} MiB for {options.devices:,} devices and {len(leases):,} leases")
    return 0


if __name__ == "__main__":
    sys.exit(main())

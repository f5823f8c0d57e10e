"""Placement once more, from scratch for each question, without a thought for speed: what the engine
must answer."""

from dataclasses import dataclass, field
from fractions import Fraction
from math import exp

from harp_scheduler.core.placement.fragmentation import CERTAIN, PATIENCE, SPREAD, UNIT
from harp_scheduler.core.placement.model import WHOLE, Demand, Device, Machine, Placed
from harp_scheduler.core.placement.workload import Typical


@dataclass
class Left:
    """What is left of a device."""

    device: Device
    memory: int
    compute: int


@dataclass
class State:
    """What a pool is like."""

    typical: Typical = ()
    machines: dict[str, Machine] = field(default_factory=dict)
    taken: list[Placed] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)

    def left(self, machine: Machine) -> list[Left]:
        parts = [part for placed in self.taken for part in placed.slices]
        return [
            Left(
                device,
                device.memory - sum(part.memory for part in parts if part.device == device.id),
                WHOLE - sum(part.compute for part in parts if part.device == device.id),
            )
            for device in machine.devices
        ]

    def host_left(self, machine: Machine) -> tuple[int, int]:
        shares = [p.host for p in self.taken if p.host and p.host.server == machine.name]
        return (
            machine.cpu_milli - sum(share.cpu_milli for share in shares),
            machine.host_memory - sum(share.memory for share in shares),
        )

    def fits(self, demand: Demand, machine: Machine, left: Left) -> bool:
        """Whether one slice of a demand may be of a device."""
        device, names = left.device, {machine.name, left.device.id}
        labels = {**machine.labels, **device.labels}
        return (
            device.id not in self.unusable
            and device.kind == demand.kind
            and (not demand.models or device.model in demand.models)
            and all(labels.get(name) == value for name, value in demand.labels)
            and not names & demand.avoid
            and (demand.only is None or bool(names & demand.only))
            and left.memory >= needs(demand, device)
            and left.compute >= demand.compute
        )

    def fitting(self, demand: Demand, machine: Machine) -> list[int]:
        """Slots of the devices that one slice fits."""
        return [n for n, left in enumerate(self.left(machine)) if self.fits(demand, machine, left)]

    def hosts(self, demand: Demand, machine: Machine) -> bool:
        cpu, memory = self.host_left(machine)
        return cpu >= demand.cpu_milli and memory >= demand.host_memory

    def can_place(self, demand: Demand) -> bool:
        """Whether a demand fits, one way or the other."""
        if any(self.holds_all(demand, machine) for machine in self.machines.values()):
            return True
        if demand.count < 2 or demand.same_server == "require" or demand.cpu_milli:
            return False
        return self.room(demand) >= demand.count

    def holds_all(self, demand: Demand, machine: Machine) -> bool:
        return self.hosts(demand, machine) and len(self.fitting(demand, machine)) >= demand.count

    def room(self, demand: Demand) -> int:
        return sum(len(self.fitting(demand, machine)) for machine in self.machines.values())

    def fewest_servers(self, demand: Demand) -> int:
        rooms = [len(self.fitting(demand, machine)) for machine in self.machines.values()]
        servers = missing = 0
        for room in sorted(rooms, reverse=True):
            if missing >= demand.count:
                break
            missing += room
            servers += 1
        return servers

    def usable(self, machine: Machine, lefts: list[Left], cpu: int, memory: int) -> int:
        """Units of idle compute that the next arrivals can use."""
        chances = [0] * len(lefts)
        for share, size in shares(self.typical):
            slots = [
                slot
                for slot, left in enumerate(lefts)
                if left.device.id not in self.unusable
                and left.device.kind == size.kind
                and (not size.models or left.device.model in size.models)
                and left.memory >= needs(size, left.device)
                and left.compute >= size.compute
            ]
            if len(slots) >= size.count and cpu >= size.cpu_milli and memory >= size.host_memory:
                for slot in slots:
                    chances[slot] += share
        worth = 0
        for chance, left in zip(chances, lefts, strict=True):
            nobody = (1 - Fraction(chance, CERTAIN)) ** PATIENCE
            if left.device.id not in self.unusable:
                worth += round(left.compute * UNIT * (1 - nobody))
        return worth

    def score(self, demand: Demand, machine: Machine, slots: list[int]) -> int:
        """0 to 100: how well a demand's slices fit these devices of a machine."""
        lefts, (cpu, memory) = self.left(machine), self.host_left(machine)
        before = self.usable(machine, lefts, cpu, memory)
        for slot in slots:
            lefts[slot].memory -= needs(demand, lefts[slot].device)
            lefts[slot].compute -= demand.compute
        if not self.typical:
            return self.tightness(lefts, slots)
        after = self.usable(machine, lefts, cpu - demand.cpu_milli, memory - demand.host_memory)
        gradient = demand.count * demand.compute * UNIT + after - before
        return int(100 / (1 + exp(-gradient / (SPREAD * UNIT))))

    def tightness(self, lefts: list[Left], slots: list[int]) -> int:
        idle = sum(each.compute for each in lefts if each.device.id not in self.unusable)
        score = 50 - 50 * idle // (WHOLE * max(1, len(lefts)))
        if len(slots) == 1:
            score += 50 - 50 * lefts[slots[0]].compute // WHOLE
        return score

    def rank(self, demand: Demand, machine: Machine) -> tuple[int, int]:
        """Sorts the machines that have room for all of a demand: the best comes first."""
        fitting = self.fitting(demand, machine)
        lefts = self.left(machine)
        if demand.count == 1:
            return -max(self.score(demand, machine, [slot]) for slot in fitting), 0
        idle = sum(each.compute for each in lefts if each.device.id not in self.unusable)
        tightest = sorted(fitting, key=lambda slot: (lefts[slot].compute, lefts[slot].memory))
        score = self.score(demand, machine, tightest[: demand.count])
        return -score, 0 if demand.count else idle


def needs(demand: Demand, device: Device) -> int:
    return demand.memory or device.memory * demand.compute // WHOLE


def shares(typical: Typical) -> list[tuple[int, Demand]]:
    """Chances in whole units, of CERTAIN in all."""
    counts = [max(1, round(share * CERTAIN)) for _, share in typical]
    if counts:
        counts[0] += CERTAIN - sum(counts)
    return [(count, size) for count, (size, _) in zip(counts, typical, strict=True)]

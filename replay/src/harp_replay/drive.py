"""Drives the scheduler's core with a workload, under a clock that jumps, and measures what comes.

The core is the one that runs in `harp scheduler`, with agents that do as they are told at once.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from harp_api.control.v1 import agent_pb2 as agent
from harp_replay.jobs import Change, Job, Jobs
from harp_replay.policies import Policy
from harp_scheduler.core.events import (
    Asked,
    Connected,
    Disconnected,
    Event,
    GivenBack,
    Reported,
    TenantSet,
    Ticked,
)
from harp_scheduler.core.model import Closing, Lease, Quota
from harp_scheduler.core.placement.model import WHOLE, Machine, Slice
from harp_scheduler.core.placement.workload import Typical, typical_of
from harp_scheduler.core.pool import LEARN_AGAIN, Outcome, Pool

CALLER = "spiffe://workload/tenant/all/user/driver"
LOOKS = 400
"""So often in a run it is looked how fragmented the pool is."""

NEVER_SILENT = 1e12
"""Seconds of grace: the agents here are never silent."""


class Devices:
    """What is idle of the devices that there are."""

    def __init__(self, typical: Typical) -> None:
        self._typical = typical
        self._places: dict[str, int] = {}
        self._machines: dict[str, int] = {}
        self._models: list[str] = []
        self._kinds: list[str] = []
        self._totals: list[int] = []
        self._of: list[int] = []
        self._idle: list[int] = []
        self._memory: list[int] = []
        self._there: list[bool] = []
        self.capacity = 0
        """Per mille of all devices that there are."""
        self.taken = 0
        """Of these; what is taken of a device that is gone does not count."""

    def come(self, machine: Machine) -> None:
        """A machine is there, or has other devices."""
        if machine.name in self._machines:
            self.go(machine.name)
        number = self._machines.setdefault(machine.name, len(self._machines))
        for device in machine.devices:
            place = self._places.get(device.id)
            if place is None:
                self._places[device.id] = len(self._idle)
                self._models.append(device.model)
                self._kinds.append(device.kind)
                self._totals.append(device.memory)
                self._of.append(number)
                self._idle.append(WHOLE)
                self._memory.append(device.memory)
                self._there.append(False)
                place = self._places[device.id]
            self._set(place, True)

    def go(self, name: str) -> None:
        """A machine is there no more."""
        number = self._machines.get(name)
        for place, of in enumerate(self._of) if number is not None else ():
            if of == number:
                self._set(place, False)

    def _set(self, place: int, there: bool) -> None:
        if self._there[place] != there:
            self._there[place] = there
            sign = 1 if there else -1
            self.capacity += sign * WHOLE
            self.taken += sign * (WHOLE - self._idle[place])

    def take(self, slices: Iterable[Slice], sign: int = 1) -> None:
        """Slices are taken; given back with a sign of -1."""
        for part in slices:
            place = self._places.get(part.device)
            if place is not None:
                self._idle[place] -= sign * part.compute
                self._memory[place] -= sign * part.memory
                self.taken += sign * part.compute * self._there[place]

    def fragmented(self) -> float:
        """The share of idle compute that a typical demand cannot use, on average."""
        there = np.array(self._there, dtype=bool)
        idle = np.where(there, np.array(self._idle), 0)
        whole = int(idle.sum())
        if not whole:
            return 0.0
        memory, totals = np.array(self._memory), np.array(self._totals)
        of, kinds, models = np.array(self._of), np.array(self._kinds), np.array(self._models)
        unusable = 0.0
        for demand, share in self._typical:
            fits = there & (idle >= demand.compute) & (kinds == demand.kind)
            fits &= memory >= (demand.memory or totals * demand.compute // WHOLE)
            if demand.models:
                fits &= np.isin(models, demand.models)
            if demand.count > 1:
                enough = np.bincount(of[fits], minlength=len(self._machines)) >= demand.count
                fits &= enough[of]
            unusable += share * (1 - int(idle[fits].sum()) / whole)
        return unusable


@dataclass(slots=True)
class Result:
    """What became of a workload. Shares are of 1, times in seconds."""

    policy: str
    allocated: float = 0.0
    """Of all compute, on average over the time that things arrived."""
    peak: float = 0.0
    fragmented: float = 0.0
    """Of the idle compute, what a typical demand cannot use, on average."""
    granted: int = 0
    refused: int = 0
    """What never got anything."""
    waits: list[float] = field(default_factory=list)
    """From arrival to grant, of each that was granted."""


class Meter:
    """Adds up what is allocated over time."""

    def __init__(self, policy: str, jobs: Jobs, typical: Typical) -> None:
        self.result = Result(policy)
        self.devices = Devices(typical)
        self._last = jobs.last
        self._step = jobs.last / LOOKS
        self._next = 0.0
        self._now = 0.0
        self._area = self._capacity = 0.0
        self._looks: list[float] = []

    def at(self, now: float) -> None:
        """Time goes on to `now`; what follows happens then."""
        until = min(now, self._last)
        if until > self._now:
            # Of times that hardly differ from 0 the step may be 0.
            while self._next < until and len(self._looks) < LOOKS:
                self._looks.append(self.devices.fragmented())
                self._next += self._step
            length = until - self._now
            self._area += self.devices.taken * length
            self._capacity += self.devices.capacity * length
            self._now = until

    def take(self, slices: tuple[Slice, ...], sign: int = 1) -> None:
        """Slices are taken, or given back."""
        self.devices.take(slices, sign)
        if self.devices.capacity:
            share = self.devices.taken / self.devices.capacity
            self.result.peak = max(self.result.peak, share)

    def done(self) -> Result:
        """What was measured."""
        result = self.result
        result.allocated = self._area / self._capacity if self._capacity else result.peak
        looks = self._looks or [self.devices.fragmented()]
        result.fragmented = sum(looks) / len(looks)
        return result


def typical(jobs: Jobs) -> Typical:
    """What usually arrives in a workload."""
    return typical_of((job.demand for job in jobs.jobs), most=64)


class Driver:
    """One run of a workload under one policy."""

    def __init__(self, name: str, policy: Policy, jobs: Jobs) -> None:
        self._jobs = jobs
        self._patience = policy.patience
        self._pool = Pool(
            1,
            0.0,
            placement=policy.placement(),
            grace=NEVER_SILENT,
            patience=policy.patience,
        )
        self._meter = Meter(name, jobs, typical(jobs))
        self._by_name = {job.name: job for job in jobs.jobs}
        self._held: dict[str, Lease] = {}
        self._todo: list[tuple[float, int, int, Event | None]] = []
        self._count = 0
        self._ticked = 0.0
        self._request = 0

    def run(self) -> Result:
        """Until nothing more happens."""
        self._handle(TenantSet("default", Quota()), 0.0)
        for tenant in {job.tenant for job in self._jobs.jobs} - {"default"}:
            self._handle(TenantSet(tenant, Quota()), 0.0)
        machines = self._jobs.machines
        for number, change in enumerate(machines):
            self._at(change.time, 0, None, number)
        for job in self._jobs.jobs:
            asked = Asked(
                CALLER,
                self._next_request(),
                job.name,
                job.tenant,
                job.demand,
                priority=job.priority,
            )
            self._at(job.arrived, 2, asked)
            if job.left_at is not None:
                self._at(job.left_at, 1, self._back(job.name))
        while self._todo:
            now, _, number, event = heapq.heappop(self._todo)
            self._meter.at(now)
            if event is None:
                self._machine(machines[number], now)
                continue
            if now - self._ticked >= LEARN_AGAIN:
                self._ticked = now
                self._handle(Ticked(), now)
            self._handle(event, now)
            is_waiting = isinstance(event, Asked) and event.lease not in self._held
            if is_waiting and 0 < self._patience < NEVER_SILENT:
                self._at(now + self._patience, 3, Ticked())
        result = self._meter.done()
        result.refused = len(self._jobs.jobs) - result.granted
        return result

    def _at(self, time: float, order: int, event: Event | None, number: int = -1) -> None:
        self._count += 1
        key = number if event is None else self._count
        heapq.heappush(self._todo, (time, order, key, event))

    def _next_request(self) -> str:
        self._request += 1
        return str(self._request)

    def _back(self, lease: str) -> GivenBack:
        return GivenBack(CALLER, self._next_request(), lease, Closing.FORCE)

    def _machine(self, change: Change, now: float) -> None:
        if change.machine is None:
            self._meter.devices.go(change.name)
            self._handle(Disconnected(change.name), now)
            return
        self._meter.devices.come(change.machine)
        register = agent.Register(address=f"{change.name}:7443", labels=change.machine.labels)
        for ordinal, device in enumerate(change.machine.devices):
            register.devices.add(
                ordinal=ordinal,
                kind=device.kind,
                model=device.model,
                memory=device.memory,
                labels=device.labels,
            )
        self._handle(Connected(change.name, register), now)

    def _handle(self, event: Event, now: float) -> None:
        """Has the core take an event, and the agents do what follows from it."""
        orders = self._note(self._pool.handle(event, now), now)
        while orders:
            server, said = orders.popitem()
            report = agent.Report(term=said.term, revision=said.revision)
            for order in said.leases:
                report.leases.add(
                    lease=order.lease, epoch=order.epoch, state=agent.Held.STATE_ADMITTED
                )
            orders |= self._note(self._pool.handle(Reported(server, report), now), now)

    def _note(self, outcome: Outcome, now: float) -> dict[str, agent.Orders]:
        for (kind, key), record in outcome.changes.items():
            if kind != "Lease" or key not in self._by_name:
                continue
            before = self._held.get(key)
            has = isinstance(record, Lease) and bool(record.slices)
            if before is not None and not has:
                self._meter.take(before.slices, -1)
                del self._held[key]
            if has and before is None:
                assert isinstance(record, Lease)
                self._held[key] = record
                self._granted(self._by_name[key], record, now)
        return dict(outcome.orders)

    def _granted(self, job: Job, lease: Lease, now: float) -> None:
        self._meter.take(lease.slices)
        self._meter.result.granted += 1
        self._meter.result.waits.append(now - job.arrived)
        if job.duration is not None:
            self._at(now + job.duration, 1, self._back(job.name))


def recorded(jobs: Jobs) -> Result:
    """What became of a workload when it was recorded."""
    meter = Meter("as recorded", jobs, typical(jobs))
    steps: list[tuple[float, int, int, Job | None]] = []
    for number, change in enumerate(jobs.machines):
        steps.append((change.time, 0, number, None))
    for number, job in enumerate(jobs.jobs):
        if job.granted is None:
            continue
        steps.append((job.granted, 2, number, job))
        if job.ended is not None:
            steps.append((job.ended, 1, number, job))
    for time, order, number, who in sorted(steps, key=lambda step: step[:3]):
        meter.at(time)
        if who is None:
            change = jobs.machines[number]
            if change.machine is None:
                meter.devices.go(change.name)
            else:
                meter.devices.come(change.machine)
            continue
        meter.take(who.slices, 1 if order == 2 else -1)
        if order == 2:
            meter.result.granted += 1
            meter.result.waits.append((who.granted or 0.0) - who.arrived)
    meter.at(jobs.last)
    result = meter.done()
    result.refused = len(jobs.jobs) - result.granted
    return result

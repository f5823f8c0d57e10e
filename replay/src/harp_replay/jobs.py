"""What arrived at a pool, and for how long it stayed: of a workload trace, or of a list (CSV)."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from harp_client.errors import HarpError
from harp_replay.events import Told, events
from harp_scheduler import openb
from harp_scheduler.core.agents import DEVICES_MAX
from harp_scheduler.core.model import MEMORY_MOST
from harp_scheduler.core.placement.model import WHOLE, Demand, Machine, Slice
from harp_scheduler.workload_trace import NUMBER_MOST, demand_of, machine_of, whole, word

NODES = "openb_node_list_gpu_node.csv"
"""Where the machines of openb's lists are."""

LAST_NS = (1 << 63) - 1
"""No time of a trace is later."""

LAST = 1e12
"""No time of a list is later, in seconds."""

Slices = tuple[Slice, ...]


@dataclass(slots=True)
class Job:
    """One lease: when it was asked for, and what became of it. Times are seconds."""

    name: str
    arrived: float
    demand: Demand
    tenant: str = "default"
    priority: int = 0
    granted: float | None = None
    ended: float | None = None
    slices: Slices = ()
    """What it had, if that was recorded."""

    @property
    def duration(self) -> float | None:
        """How long it held what it got; None where it has not ended."""
        if self.ended is None or self.granted is None:
            return None
        return max(0.0, self.ended - self.granted)

    @property
    def left_at(self) -> float | None:
        """When it was taken back without having got anything."""
        return self.ended if self.granted is None else None


class Change(NamedTuple):
    """A machine comes (or comes back changed), or goes."""

    time: float
    name: str
    machine: Machine | None


@dataclass(slots=True)
class Jobs:
    """A workload: what there was, and what arrived, in the order of time."""

    machines: list[Change] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    last: float = 0.0
    """When the recording ended, or the last job arrived."""

    @property
    def is_recorded(self) -> bool:
        """Whether it says who got which devices."""
        return any(job.slices for job in self.jobs)


def read(path: str, machines: str | None, most: int | None) -> Jobs:
    """The workload at `path`: a trace, lines of one, or a list (.csv) with the machines in another.

    At most `most` jobs are taken. Raises HarpError (2).
    """
    try:
        found = _of_list(path, machines) if path.endswith(".csv") else _of_trace(path)
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise HarpError(
            f"{path} is no workload: {error!r}",
            "record one with harp scheduler --workload, or write a list like openb's",
            2,
        ) from error
    except OSError as error:
        raise HarpError(f"cannot read {error.filename}: {error.strerror}", "", 2) from error
    found.jobs.sort(key=lambda job: job.arrived)
    del found.jobs[most if most is not None else len(found.jobs) :]
    if not found.jobs or not found.machines:
        what = "nothing arrives" if found.machines else "there are no machines"
        raise HarpError(f"{path} is no workload: {what} in it", "name another file", 2)
    found.last = max(found.last, found.jobs[-1].arrived)
    if most is not None:
        found.last = found.jobs[-1].arrived
    return found


def _of_trace(path: str) -> Jobs:
    found = Jobs()
    jobs: dict[str, Job] = {}
    for event in events(path):
        if isinstance(event, Told) and event.kind == "annotation" and "workload" in event.fields:
            said = event.fields
            time = whole(said["time"], LAST_NS) / 1e9
            found.last = max(found.last, time)
            _take(found, jobs, said, time)
    return found


def _take(found: Jobs, jobs: dict[str, Job], said: Mapping[str, Any], time: float) -> None:
    match said["workload"]:
        case "machine":
            machine = machine_of(said)
            found.machines.append(Change(time, machine.name, machine))
        case "gone":
            found.machines.append(Change(time, word(said["name"]), None))
        case "arrival" if word(said["lease"]) not in jobs:
            name = said["lease"]
            demand = demand_of(said["demand"])
            tenant = word(said.get("tenant", "default"))
            priority = whole(said.get("priority", 0), NUMBER_MOST, -NUMBER_MOST)
            jobs[name] = Job(f"{name}#{len(found.jobs)}", time, demand, tenant, priority)
            found.jobs.append(jobs[name])
        case "grant" if (job := jobs.get(word(said["lease"]))) is not None:
            job.granted = time
            job.slices = tuple(
                Slice(
                    word(part["device"]),
                    whole(part["memory"], MEMORY_MOST),
                    whole(part["compute"], WHOLE),
                )
                for part in said["slices"]
            )
        case "end" if (job := jobs.pop(word(said["lease"]), None)) is not None:
            job.ended = time


def _of_list(path: str, machines: str | None) -> Jobs:
    """openb's columns, and the times of a task in seconds. What asks for no GPU is left out, and so
    are the cores and the memory that a task wants beside them."""
    nodes = machines or os.path.join(os.path.dirname(path), NODES)
    if not os.path.exists(nodes):
        raise HarpError(f"no machines: {nodes} is not there", "name their list with --machines", 2)
    found = Jobs()
    with open(nodes, newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            whole(int(row["gpu"]), DEVICES_MAX)
            machine = openb.machine_of(row)
            for device in machine.devices:
                word(device.model)
                whole(device.memory, MEMORY_MOST)
            found.machines.append(Change(0.0, word(machine.name), machine))
    with open(path, newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            if int(row["num_gpu"]):
                found.jobs.append(_job(row))
    first = min((job.arrived for job in found.jobs), default=0.0)
    for job in found.jobs:
        job.arrived -= first
        job.granted = None if job.granted is None else job.granted - first
        job.ended = None if job.ended is None else job.ended - first
    return found


def _job(row: Mapping[str, str]) -> Job:
    demand = openb.without_host(openb.demand_of(row))
    arrived = _time(row["creation_time"])
    granted, ended = (_time(row[key]) if row.get(key) else None for key in TIMES)
    return Job(word(row["name"]), arrived, demand, granted=granted, ended=ended)


TIMES = ("scheduled_time", "deletion_time")


def _time(text: str) -> float:
    time = float(text)
    if not math.fabs(time) <= LAST:  # nor is it not a number
        raise ValueError(f"there is no time {text}")
    return time


def faster(jobs: Jobs, times: float) -> Jobs:
    """The same workload with arrivals so many times as dense; jobs last as long as they did."""
    if times == 1:
        return jobs
    changes = [change._replace(time=change.time / times) for change in jobs.machines]
    moved = []
    for job in jobs.jobs:
        arrived = job.arrived / times
        by = arrived - job.arrived
        granted = None if job.granted is None else job.granted + by
        ended = None if job.ended is None else job.ended + by
        moved.append(replace(job, arrived=arrived, granted=granted, ended=ended, slices=()))
    return Jobs(changes, moved, jobs.last / times)

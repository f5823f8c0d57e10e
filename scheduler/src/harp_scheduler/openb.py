"""Rows of lists like those of openb, Alibaba's trace of a cluster of GPUs.

Servers: `sn`, `gpu` (how many), `model`, `cpu_milli`, `memory_mib`, and `gpu_memory` (bytes), which
openb does not have. Tasks: `num_gpu`, `gpu_milli`, `gpu_spec`, `cpu_milli`, `memory_mib`. What has
to do with the host's cores and memory may be missing. Raises KeyError or ValueError for a row that
is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from harp_scheduler.core.placement.model import WHOLE, Demand, Device, Machine

MIB = 1 << 20

Row = Mapping[str, str]


def machine_of(row: Row) -> Machine:
    """A server."""
    name = row["sn"]
    memory = _number(row, "gpu_memory")
    devices = (
        Device(f"{name}/{number}", name, "gpu", row["model"], memory)
        for number in range(int(row["gpu"]))
    )
    cpu_milli, host_memory = _number(row, "cpu_milli"), MIB * _number(row, "memory_mib")
    return Machine(name, tuple(devices), cpu_milli=cpu_milli, host_memory=host_memory)


def demand_of(row: Row) -> Demand:
    """What a task asks for."""
    return Demand(
        count=int(row["num_gpu"]),
        models=tuple(filter(None, (row.get("gpu_spec") or "").split("|"))),
        compute=int(row["gpu_milli"]) or WHOLE,
        cpu_milli=_number(row, "cpu_milli"),
        host_memory=MIB * _number(row, "memory_mib"),
        same_server="require",
    )


def without_host(demand: Demand) -> Demand:
    """The devices of a demand alone."""
    return replace(demand, cpu_milli=0, host_memory=0)


def _number(row: Row, column: str) -> int:
    return int(row.get(column) or 0)

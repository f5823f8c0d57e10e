"""A pool's workload as lines of a trace: which demands arrive, what is granted, and when it ends.

`harp scheduler --workload FILE` writes them, `harp-replay workload` reads them, and `harp-replay
convert` makes a trace of them. Each is an annotation of the trace format; docs/trace-format.md
lists their fields. There is no user, host or program in them, only tenants.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from harp_client import __version__
from harp_scheduler.core.book import Book
from harp_scheduler.core.model import MEMORY_MOST, Accelerator, Lease, Server, server_of
from harp_scheduler.core.placement.model import WHOLE, Demand, Device, Machine
from harp_scheduler.core.pool import Outcome

QUEUED_MOST = 10_000
"""Lines that wait for a slow disk; more are counted as lost."""

CLOSE_SECONDS = 5.0
"""What a slow disk gets when the scheduler stops."""

NUMBER_MOST = (1 << 31) - 1
"""Of devices that are asked for, and of priorities; so many bits the wire has for them."""

WAITS = -1

Line = dict[str, Any]


def whole(value: Any, most: int, least: int = 0) -> int:
    """A number that JSON says. Raises ValueError where it says none in these bounds."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"a number of at most {most} is wanted")
    return value


def word(value: Any) -> str:
    """A name that JSON says. Raises ValueError where it says none that messages can carry."""
    if type(value) is not str:
        raise ValueError("a name is wanted")
    value.encode()  # JSON may have halves of characters
    return value


def _labels(value: Any) -> dict[str, str]:
    if type(value) is not dict:
        raise ValueError("labels are wanted")
    return {word(name): word(each) for name, each in value.items()}


def demand_as_data(demand: Demand) -> Line:
    """A demand as JSON; what is as always is left out."""
    data: Line = {"count": demand.count, "compute": demand.compute, "kind": demand.kind}
    if demand.memory:
        data["memory"] = demand.memory
    if demand.models:
        data["models"] = list(demand.models)
    if demand.labels:
        data["labels"] = dict(demand.labels)
    if demand.same_server == "require":
        data["same_server"] = "require"
    return data


def demand_of(data: Mapping[str, Any]) -> Demand:
    """The demand that JSON says. Raises ValueError, TypeError or KeyError where it says none."""
    said = {"memory": 0, "models": (), "labels": {}, "same_server": "prefer", **data}
    return Demand(
        kind=word(said["kind"]),
        count=whole(said["count"], NUMBER_MOST),
        models=tuple(map(word, said["models"])),
        memory=whole(said["memory"], MEMORY_MOST),
        compute=whole(said["compute"], WHOLE),
        labels=tuple(sorted(_labels(said["labels"]).items())),
        same_server="require" if said["same_server"] == "require" else "prefer",
    )


def machine_as_data(machine: Machine) -> Line:
    """A machine as JSON."""
    return {
        "name": machine.name,
        "labels": dict(machine.labels),
        "devices": [
            {
                "kind": device.kind,
                "model": device.model,
                "memory": device.memory,
                "labels": dict(device.labels),
            }
            for device in machine.devices
        ],
    }


def machine_of(data: Mapping[str, Any]) -> Machine:
    """The machine that JSON says. Raises ValueError, TypeError or KeyError where it says none."""
    name = word(data["name"])
    devices = (
        Device(
            f"{name}/{number}",
            name,
            word(each["kind"]),
            word(each["model"]),
            whole(each["memory"], MEMORY_MOST),
            _labels(each.get("labels", {})),
        )
        for number, each in enumerate(data["devices"])
    )
    return Machine(name, tuple(devices), _labels(data.get("labels", {})))


def _phase(lease: Lease | None) -> int | None:
    """WAITS, or the epoch of the grant, or None where a lease neither waits nor has slices."""
    if lease is None or not (lease.waits or lease.slices):
        return None
    return lease.epoch if lease.slices else WAITS


class Workload:
    """Follows the outcomes of a pool's events; `lines` are what they say."""

    def __init__(self, began: int) -> None:
        """`began`: when the trace did, by `time.monotonic_ns`."""
        self._began = began
        self._leases: dict[str, Lease] = {}
        self._machines: dict[str, Machine] = {}

    def begin(self, book: Book) -> Iterator[Line]:
        """What there is when a scheduler begins to lead."""
        for name in sorted(book.servers):
            yield from self._machine(book, name)
        for key in sorted(book.leases, key=lambda key: book.leases[key].order):
            yield from self._lease(key, book.leases[key])

    def take(self, book: Book, outcome: Outcome) -> Iterator[Line]:
        """What one event has led to; to be written once it is stored."""
        servers = set()
        for (kind, key), record in outcome.changes.items():
            if kind in (Server.__name__, Accelerator.__name__):
                servers.add(key if kind == Server.__name__ else server_of(key))
            elif kind == Lease.__name__:
                yield from self._lease(key, record if isinstance(record, Lease) else None)
        for name in sorted(servers):
            yield from self._machine(book, name)

    def _line(self, what: str, **fields: Any) -> Line:
        now = time.monotonic_ns() - self._began
        return {"type": "annotation", "workload": what, "time": now, **fields}

    def _lease(self, key: str, new: Lease | None) -> Iterator[Line]:
        old = self._leases.get(key)
        if new is None:
            self._leases.pop(key, None)
        else:
            self._leases[key] = new
        before, after = _phase(old), _phase(new)
        if before == after:
            return
        is_granted_now = before == WAITS and after is not None
        if before is not None and not is_granted_now:
            yield self._line("end", lease=key)
        if new is None or after is None:
            return
        if not is_granted_now:
            yield self._line(
                "arrival",
                lease=key,
                tenant=new.tenant,
                priority=new.priority,
                demand=demand_as_data(new.demand),
            )
        if after != WAITS:
            slices = [
                {"device": part.device, "memory": part.memory, "compute": part.compute}
                for part in new.slices
            ]
            yield self._line("grant", lease=key, slices=slices)

    def _machine(self, book: Book, name: str) -> Iterator[Line]:
        devices = [book.accelerators[key] for key in book.devices_of.get(name, ())]
        there = sorted((each for each in devices if each.present), key=lambda each: each.ordinal)
        server = book.servers.get(name)
        if server is None or not there:
            if self._machines.pop(name, None) is not None:
                yield self._line("gone", name=name)
            return
        machine = Machine(
            name,
            tuple(
                Device(each.id, name, each.kind, each.model, each.memory, dict(each.labels))
                for each in there
            ),
            dict(server.labels),
        )
        if self._machines.get(name) != machine:
            self._machines[name] = machine
            yield self._line("machine", **machine_as_data(machine))


class WorkloadFile:
    """Writes lines to a file, by a thread of its own: a slow disk keeps nobody waiting."""

    def __init__(self, path: str) -> None:
        """Raises OSError where there is such a file already, or cannot be one."""
        self._file = open(path, "x", encoding="utf-8")  # noqa: SIM115  the thread closes it
        self.began = time.monotonic_ns()
        self._queue: queue.Queue[Line | None] = queue.Queue(QUEUED_MOST)
        self._lost = 0
        self._thread = threading.Thread(target=self._run, name="workload", daemon=True)
        self._thread.start()
        started = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        told = {"program": "harp scheduler", "harp": __version__, "started": started}
        self.write([{"type": "process", **told, "clock": "ns since started"}])

    def write(self, lines: Iterable[Line]) -> None:
        """Has lines written; those for which there is no room are lost, and counted."""
        for line in lines:
            try:
                if self._lost:
                    lost = {"reasons": ["no room"], "bits": 1, "blocks": self._lost, "bytes": 0}
                    self._queue.put_nowait({"type": "loss", "time": line.get("time", 0), **lost})
                    self._lost = 0
                self._queue.put_nowait(line)
            except queue.Full:
                self._lost += 1

    def close(self) -> None:
        """Writes the end, and waits for the disk for a while."""
        whole = {"type": "trace", "complete": True, "cut": False, "calls": 0}
        self.write([{"type": "end", "reason": "exit"}, whole])
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=CLOSE_SECONDS)
            self._thread.join(timeout=CLOSE_SECONDS)

    def _run(self) -> None:
        with contextlib.suppress(OSError), self._file:
            while True:
                line = self._queue.get()
                if line is None:
                    break
                try:
                    self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
                    if self._queue.empty():
                        self._file.flush()
                except OSError:
                    self._lost += 1

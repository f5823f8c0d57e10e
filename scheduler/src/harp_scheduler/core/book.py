"""The pool's records, and what follows from them.

`Book` is what the core's functions read and change. It holds the records that are stored, what is
known only while this scheduler leads (links to agents, renewals), and collects what one event
changes: records for the transaction, servers that need new orders, leases to tell watchers of.
"""

from __future__ import annotations

import copy
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from harp_api.control.v1 import agent_pb2 as agent
from harp_scheduler.core.model import (
    Accelerator,
    Closing,
    Lease,
    Profile,
    Request,
    Server,
    State,
    Tenant,
    server_of,
)
from harp_scheduler.core.placement.engine import Placement
from harp_scheduler.core.placement.model import Device, Machine, Placed
from harp_scheduler.core.placement.workload import Workload

PATIENCE = 60.0
"""Seconds that a lease waits before those of its kind behind it may not pass it any more."""

Record = Server | Accelerator | Lease | Tenant | Profile | Request
Key = tuple[str, str]
"""The class name of a record, and what it is called by."""


class Number(NamedTuple):
    """A counter of the pool that is stored: `epoch` (of grants) or `order` (of requests)."""

    name: Literal["epoch", "order"]
    value: int


@dataclass(slots=True)
class Link:
    """What is known of a server's agent since this scheduler leads."""

    heard: float
    """When it was last heard of; when this scheduler began to lead, if it never was."""

    connected: bool = False
    revision: int = 0
    """Of the last orders for it."""

    taken: int = 0
    """Of the orders that its last report was made with."""

    last: agent.Report | None = None
    """Its last report, of this connection."""

    held: dict[int, agent.Held] = field(default_factory=dict)
    """Its last report, by epoch."""

    withdrawn: dict[str, int] = field(default_factory=dict)
    """Leases that are not ordered any more, with the revision of the first orders without them."""

    fenced: bool = False
    """It has been silent for so long that it has ended all that it held."""

    def sessions(self, lease: Lease) -> int:
        """Programs that use a lease there, by the last report."""
        held = self.held.get(lease.epoch)
        return held.sessions if held is not None else 0


@dataclass(slots=True)
class Usage:
    """What the leases of a tenant hold."""

    devices: int = 0
    memory: int = 0
    compute: int = 0
    leases: int = 0


class Book:
    """Records, links, and the changes since they were last taken away."""

    def __init__(self, term: int, placement: Placement, now: float, since_1970: float) -> None:
        self.term = term
        self.placement = placement
        self.workload = Workload()
        """Which demands arrive: what a fragment is depends on it."""

        self.patience = PATIENCE
        self.began = now
        self._ahead = since_1970 - now
        """Of the clock that never goes back is the one whose times are stored."""

        self.epoch = 0
        self.order = 0
        self.servers: dict[str, Server] = {}
        self.accelerators: dict[str, Accelerator] = {}
        self.leases: dict[str, Lease] = {}
        self.tenants: dict[str, Tenant] = {}
        self.profiles: dict[str, Profile] = {}
        self.requests: dict[tuple[str, str], Request] = {}
        self.links: dict[str, Link] = {}
        self.devices_of: dict[str, set[str]] = defaultdict(set)
        self.leases_on: dict[str, set[str]] = defaultdict(set)
        self.leases_of: dict[str, set[str]] = defaultdict(set)
        """Leases by tenant."""

        self.leases_at: dict[str, set[str]] = {}
        """Leases by the host that they are attached to."""

        self.names: dict[tuple[str, str], str] = {}
        self.usage: dict[str, Usage] = defaultdict(Usage)
        self.timed: set[str] = set()
        """Leases that end when their time is over."""

        self.waiting: list[tuple[int, int, str]] = []
        """The queue: (less priority, order, lease), sorted."""

        self.waiting_since: dict[str, float] = {}
        self.waits_for: dict[str, str] = {}
        """Why leases of the queue are not granted. Not stored: it follows from the rest, and
        changes for the whole queue at once."""

        self.renewed: dict[str, float] = {}
        self.changes: dict[Key, Record | None] = {}
        self.numbers: dict[str, Number] = {}
        self.reordered: set[str] = set()
        self.told: set[str] = set()
        self.accounted: set[str] = set()
        """Tenants whose leases hold something else: whoever measures usage takes them away."""

        self.capacity_changed = True

    def load(self, records: Iterable[Record], numbers: Iterable[Number]) -> None:
        """Takes what was stored; nothing of it counts as a change."""
        for number in numbers:
            setattr(self, number.name, number.value)
        latest = self.stored_time(self.began)
        for record in records:
            if isinstance(record, Lease):
                self.workload.observe(record.demand)
                # Not known, or in the future: the database's clock was set.
                if record.longest and not 0 < record.granted <= latest:
                    record = replace(record, granted=latest)
            self.put(record)
        # After the leases: what they hold stays theirs, also of a device that has become smaller.
        for name in self.servers:
            self.arrange(name)
        self.changes.clear()
        self.told.clear()
        self.reordered = set(self.servers)

    def stored_time(self, now: float) -> float:
        """Seconds since 1970, UTC, at `now`, by the database's clock when this scheduler began."""
        return now + self._ahead

    def next_epoch(self) -> int:
        """The number of another grant, above all that were given."""
        self.epoch += 1
        self.numbers["epoch"] = Number("epoch", self.epoch)
        return self.epoch

    def next_order(self) -> int:
        """The place of another request among all that ever came."""
        self.order += 1
        self.numbers["order"] = Number("order", self.order)
        return self.order

    def put(self, record: Record) -> None:
        """Makes a record, or replaces the one of its name."""
        match record:
            case Server(name=name):
                self.servers[name] = record
                self.links.setdefault(name, Link(self.began))
            case Accelerator(id=name):
                self.accelerators[name] = record
                self.devices_of[record.server].add(name)
            case Lease(id=name):
                self._lease_changes(self.leases.get(name), record)
                self.leases[name] = record
            case Tenant(name=name):
                self.tenants[name] = record
            case Profile(name=name):
                self.profiles[name] = record
            case Request(caller=caller, id=request):
                self.requests[caller, request] = record
                name = f"{caller} {request}"
        self.changes[type(record).__name__, name] = record

    def drop(self, record: Record) -> None:
        """Removes a record."""
        match record:
            case Server(name=name):
                del self.servers[name], self.links[name]
                self.devices_of.pop(name, None)
                self.placement.remove(name)
            case Accelerator(id=name):
                del self.accelerators[name]
                self.devices_of[record.server].discard(name)
            case Lease(id=name):
                self._lease_changes(self.leases[name], None)
                del self.leases[name]
                for known in (self.waiting_since, self.waits_for, self.renewed):
                    known.pop(name, None)
            case Tenant(name=name):
                del self.tenants[name]
            case Profile(name=name):
                del self.profiles[name]
            case Request(caller=caller, id=request):
                del self.requests[caller, request]
                name = f"{caller} {request}"
        self.changes[type(record).__name__, name] = None

    def change(self, lease: str, **fields: object) -> Lease:
        """Replaces fields of a lease; one that would stay as it is changes nothing."""
        old = self.leases[lease]
        new = replace(old, **fields)  # type: ignore[arg-type]
        if new != old:
            self.put(new)
        return new

    def _lease_changes(self, old: Lease | None, new: Lease | None) -> None:
        """Brings up to date what is derived from leases: engine, queue, orders, usage, names."""
        known = new or old
        assert known is not None
        self.told.add(known.id)
        usage = self.usage[known.tenant]
        for lease, sign in ((old, -1), (new, 1)):
            if lease is None:
                continue
            usage.leases += sign
            usage.devices += sign * len(lease.slices)
            usage.memory += sign * sum(part.memory for part in lease.slices)
            usage.compute += sign * sum(part.compute for part in lease.slices)
        if old is not None:
            del self.names[old.tenant, old.name]
            if old.waits:
                del self.waiting[bisect_left(self.waiting, place_in_queue(old))]
            self.timed.discard(known.id)
            self.leases_of[known.tenant].discard(known.id)
        if known.host and new is None:
            self.leases_at[known.host].discard(known.id)
            if not self.leases_at[known.host]:
                del self.leases_at[known.host]
        if new is not None:
            self.leases_of[new.tenant].add(new.id)
            if new.host:
                self.leases_at.setdefault(new.host, set()).add(new.id)
            self.names[new.tenant, new.name] = new.id
            if new.ttl or new.longest:
                self.timed.add(new.id)
            if new.waits:
                insort(self.waiting, place_in_queue(new))
        self._slices_change(old, new)

    def _slices_change(self, old: Lease | None, new: Lease | None) -> None:
        before = old.slices if old else ()
        after = new.slices if new else ()
        if before != after:
            known = new or old
            assert known is not None
            self.accounted.add(known.tenant)
            if before:
                self.placement.give_back(Placed(before))
                self.capacity_changed = True
            if after:
                self.placement.take(Placed(after))
        # Orders name the lease, its epoch, its owner, and whether it is closed or withdrawn.
        ordered = [lease and (lease.slices, lease.epoch, lease.closing) for lease in (old, new)]
        if ordered[0] != ordered[1]:
            known = new or old
            assert known is not None
            there = {server_of(part.device) for part in after}
            for server in there:
                self.leases_on[server].add(known.id)
            gone = {server_of(part.device) for part in before} - there
            for server in gone:
                self.leases_on[server].discard(known.id)
            self.reordered |= there | gone

    def arrange(self, server: str) -> None:
        """Tells the placement what a server has, and which of it may be used."""
        known = self.servers[server]
        devices = [self.accelerators[name] for name in sorted(self.devices_of[server], key=ordinal)]
        if not devices:
            self.placement.remove(server)
            return
        self.placement.update(
            Machine(
                known.name,
                tuple(
                    Device(d.id, server, d.kind, d.model, d.memory, dict(d.labels)) for d in devices
                ),
                dict(known.labels),
            )
        )
        link = self.links[server]
        for device in devices:
            self.placement.set_usable(device.id, unusable(known, link, device))
        self.capacity_changed = True

    def waits_because(self, lease: str, reason: str) -> None:
        """Notes why a lease of the queue is not granted now."""
        if self.waits_for.get(lease) != reason:
            self.waits_for[lease] = reason
            self.told.add(lease)

    def reason(self, lease: Lease) -> str:
        """Why a lease is as it is; empty where nothing is to be said."""
        return self.waits_for.get(lease.id, "") if lease.waits else lease.reason

    def sessions(self, lease: Lease) -> int:
        """Programs that use a lease, by the last reports; a session of each server counts."""
        return sum(self.links[server].sessions(lease) for server in lease.servers)

    def sessions_of(self, tenant: str) -> int:
        """Sessions that use a tenant's leases, by the servers' last reports."""
        return sum(self.sessions(self.leases[name]) for name in self.leases_of[tenant])

    def reorder(self, tenant: str) -> None:
        """Has the servers of a tenant's leases get new orders."""
        for name in self.leases_of[tenant]:
            self.reordered.update(self.leases[name].servers)

    def copied(self) -> Book:
        """What is known now of servers, devices, leases, profiles and tenants, to be read while
        this book changes. Records are never changed, only replaced."""
        made = copy.copy(self)
        made.servers, made.accelerators = dict(self.servers), dict(self.accelerators)
        made.leases, made.profiles = dict(self.leases), dict(self.profiles)
        made.tenants, made.usage = dict(self.tenants), defaultdict(Usage)
        made.usage |= {name: copy.copy(usage) for name, usage in self.usage.items()}
        made.links = {
            name: Link(link.heard, link.connected, held=link.held)
            for name, link in self.links.items()
        }
        made.devices_of, made.leases_of = defaultdict(set), defaultdict(set)
        made.devices_of |= {name: set(devices) for name, devices in self.devices_of.items()}
        made.leases_of |= {name: set(leases) for name, leases in self.leases_of.items()}
        made.leases_at = {name: set(leases) for name, leases in self.leases_at.items()}
        made.waiting, made.waits_for = list(self.waiting), dict(self.waits_for)
        return made

    def is_reachable(self, server: str) -> bool:
        """Whether its agent is connected."""
        link = self.links.get(server)
        return link is not None and link.connected


def place_in_queue(lease: Lease) -> tuple[int, int, str]:
    """By what the queue is sorted: higher priority, then who came first."""
    return -lease.priority, lease.order, lease.id


def ordinal(device: str) -> tuple[int, str]:
    """Sorts the devices of one server by their numbers."""
    number = device.rpartition("/")[2]
    return (int(number) if number.isdigit() else 0), device


def unusable(server: Server, link: Link, device: Accelerator) -> str:
    """Why no lease may begin on a device; empty where one may."""
    if not device.present:
        return "gone"
    if not link.connected:
        return "out of reach"
    if server.cordoned or device.cordoned:
        return "cordoned"
    if device.fault or device.incident:
        return "faulty"
    return ""


def is_ordered(lease: Lease) -> bool:
    """Whether servers are to hold the lease."""
    return bool(lease.slices) and lease.closing is not Closing.FORCE and lease.state != State.LOST

"""The pool's records as callers see them."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator

from harp_api.control.v1 import pool_pb2 as api
from harp_scheduler.core import model
from harp_scheduler.core.book import Book, place_in_queue, unusable
from harp_scheduler.core.placement.model import Demand


def demand(known: Demand) -> api.Demand:
    """What a lease or a profile asks for."""
    return api.Demand(
        kind=known.kind,
        count=known.count,
        models=known.models,
        memory=known.memory,
        compute=known.compute,
        labels=dict(known.labels),
        same_server=known.same_server == "require",
    )


def lease(book: Book, known: model.Lease) -> api.Lease:
    """A lease, and where its slices are."""
    view = api.Lease(
        id=known.id,
        name=known.name,
        tenant=known.tenant,
        owner=known.owner,
        host=known.host,
        users=known.users,
        demand=demand(known.demand),
        priority=known.priority,
        state=known.state.value,
        reason=book.reason(known),
        epoch=known.epoch,
        sessions=book.sessions(known),
        place=place(book, known),
        ttl=known.ttl,
    )
    for part in known.slices:
        device = book.accelerators[part.device]
        view.targets.add(
            server=device.server,
            address=book.servers[device.server].address,
            device=device.id,
            ordinal=device.ordinal,
            kind=device.kind,
            model=device.model,
            memory=part.memory,
            compute=part.compute,
            labels=dict(device.labels),
        )
    return view


def sessions(book: Book, known: model.Lease) -> Iterator[api.Session]:
    """The programs that use a lease, by the last reports of its servers."""
    for server in known.servers:
        held = book.links[server].held.get(known.epoch)
        for running in held.running if held is not None else ():
            yield api.Session(
                name=running.session,
                server=server,
                lease=known.id,
                lease_name=known.name,
                tenant=known.tenant,
                host=known.host,
                user=running.user,
                program=running.program,
                pid=running.pid,
                began=running.began,
            )


def hosts(book: Book, wanted: Iterable[model.Lease]) -> list[api.Host]:
    """The hosts that leases are attached to, in the order of their names."""
    found: dict[str, api.Host] = {}
    for known in wanted:
        if known.host:
            host = found.setdefault(known.host, api.Host(name=known.host))
            host.leases.append(known.name)
            if known.state in (model.State.AVAILABLE, model.State.IN_USE):
                host.devices.extend(part.device for part in known.slices)
            else:
                reason = book.reason(known)
                host.left_out.append(
                    f"{known.name}: {known.state.value}" + (f", {reason}" if reason else "")
                )
            host.sessions += book.sessions(known)
    return [host for _, host in sorted(found.items())]


def place(book: Book, known: model.Lease) -> int:
    """The place in the queue, from 1; 0 for a lease that does not wait."""
    return 1 + bisect_left(book.waiting, place_in_queue(known)) if known.waits else 0


def server(book: Book, known: model.Server) -> api.Server:
    """A server, and what is known of its agent."""
    link = book.links[known.name]
    return api.Server(
        name=known.name,
        address=known.address,
        labels=dict(known.labels),
        connected=link.connected,
        cordoned=known.cordoned,
        silent=max(0.0, time.monotonic() - link.heard),
        devices=len(book.devices_of[known.name]),
        sessions=sum(held.sessions for held in link.held.values()),
    )


def devices(
    book: Book, wanted: Iterable[model.Accelerator], may_see: Callable[[model.Lease], bool]
) -> list[api.Accelerator]:
    """Devices, what leases hold of each, and the names of those leases that may be seen."""
    views = {}
    for known in wanted:
        views[known.id] = api.Accelerator(
            id=known.id,
            server=known.server,
            ordinal=known.ordinal,
            kind=known.kind,
            model=known.model,
            memory=known.memory,
            labels=dict(known.labels),
            unusable=unusable(book.servers[known.server], book.links[known.server], known),
            fault=fault(known),
        )
    for held in book.leases.values():
        for part in held.slices:
            if (view := views.get(part.device)) is not None:
                view.memory_leased += part.memory
                view.compute_leased += part.compute
                if may_see(held):
                    view.leases.append(held.name)
    return list(views.values())


def fault(known: model.Accelerator) -> str:
    """Why a device is faulty, with what to do."""
    incident = f"{known.incident}, then harp uncordon {known.id}" if known.incident else ""
    return "; ".join(filter(None, (incident, known.fault)))


def quota(known: model.Quota) -> api.Quota:
    """A quota; what is not limited stays unset."""
    return api.Quota(
        devices=known.devices,
        memory=known.memory,
        compute=known.compute,
        leases=known.leases,
        longest=known.longest,
        sessions=known.sessions,
    )


def tenant(book: Book, known: model.Tenant) -> api.Tenant:
    """A tenant, its quota, and what its leases hold of it."""
    used = book.usage[known.name]
    return api.Tenant(
        name=known.name,
        quota=quota(known.quota),
        used=api.Quota(
            devices=used.devices,
            memory=used.memory,
            compute=used.compute,
            leases=used.leases,
            sessions=book.sessions_of(known.name),
        ),
    )


def profile(known: model.Profile) -> api.Profile:
    """A size that has a name."""
    return api.Profile(name=known.name, demand=demand(known.demand))

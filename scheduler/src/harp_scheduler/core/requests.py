"""What people and programs ask of the pool: leases, and the admin's words.

Each function changes the book or raises `Refused`; who asked, and that he may, was checked before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from harp_scheduler.core.book import Book, Usage
from harp_scheduler.core.events import (
    Asked,
    Cordoned,
    GivenBack,
    ProfileRemoved,
    ProfileSet,
    RecordingAsked,
    Renewed,
    ServerRemoved,
    Started,
    TenantSet,
)
from harp_scheduler.core.granting import beyond
from harp_scheduler.core.leases import close, settle, withdraw
from harp_scheduler.core.model import (
    After,
    Closing,
    Lease,
    Request,
    State,
    Tenant,
)
from harp_scheduler.core.refused import Conflict, NotFound, OverQuota

REQUESTS_KEPT = 100_000
"""Answered requests that are remembered; the oldest are forgotten first."""

GIVEN_BACK = "given back"
"""Why a lease ends that somebody wanted no more."""


def repeated(book: Book, caller: str, request: str) -> str | None:
    """The lease that an earlier call with the same id was about, or None."""
    known = book.requests.get((caller, request))
    return known.subject if known else None


def remember(book: Book, caller: str, request: str, subject: str) -> None:
    """Keeps a request as answered."""
    if len(book.requests) >= REQUESTS_KEPT:
        book.drop(next(iter(book.requests.values())))
    book.put(Request(caller, request, subject))


def ask(book: Book, asked: Asked, now: float) -> str:
    """A new lease, which waits in the queue; what is free is granted at the end of the event."""
    if (done := repeated(book, asked.caller, asked.request)) is not None:
        return done
    tenant = book.tenants.get(asked.tenant)
    if tenant is None:
        raise NotFound(f"there is no tenant {asked.tenant}", "harp create tenant")
    name = asked.name or asked.lease
    if (asked.tenant, name) in book.names:
        raise Conflict(
            f"tenant {asked.tenant} already has a lease named {name}", "choose another --name"
        )
    quota = tenant.quota
    if quota.leases is not None and book.usage[asked.tenant].leases >= quota.leases:
        raise OverQuota(f"tenant {asked.tenant} has its {quota.leases} leases", "harp detach one")
    if reason := beyond(quota, Usage(), asked.demand):
        raise OverQuota(
            f"it can never be granted: {reason}", "ask for less, or have the quota raised"
        )
    limits = [limit for limit in (asked.longest, quota.longest or 0.0) if limit]
    book.put(
        Lease(
            id=asked.lease,
            tenant=asked.tenant,
            owner=asked.owner or asked.caller,
            demand=asked.demand,
            order=book.next_order(),
            name=name,
            host=asked.host,
            users=asked.users,
            priority=asked.priority,
            ttl=asked.ttl,
            longest=min(limits, default=0.0),
        )
    )
    book.waiting_since[asked.lease] = book.renewed[asked.lease] = now
    book.capacity_changed = True
    book.workload.observe(asked.demand)
    remember(book, asked.caller, asked.request, asked.lease)
    return asked.lease


def give_back(book: Book, given: GivenBack, now: float) -> str:
    """Begins to detach or stop a lease; `settle` goes on as the servers report."""
    if (done := repeated(book, given.caller, given.request)) is not None:
        return done
    lease = found(book, given.lease)
    remember(book, given.caller, given.request, lease.id)
    if lease.closing is Closing.FORCE:
        # Already on its way: only what becomes of it may still change.
        if given.after is After.GONE:
            book.change(lease.id, after=After.GONE)
        return lease.id
    if not lease.slices:
        if given.after is After.GONE:
            book.drop(lease)
        else:
            book.change(lease.id, state=State.UNAVAILABLE, reason="stopped")
        return lease.id
    if given.how is Closing.FORCE:
        withdraw(book, lease, given.after, GIVEN_BACK)
    else:
        reason = "waits for its programs to end" if given.how is Closing.DRAIN else ""
        close(book, lease, given.how, given.after, reason)
    settle(book, lease.id, now)
    return lease.id


def start(book: Book, started: Started, now: float) -> str:
    """Puts a stopped or lost lease back into the queue."""
    if (done := repeated(book, started.caller, started.request)) is not None:
        return done
    lease = found(book, started.lease)
    if lease.waits or (lease.slices and lease.closing is None):
        remember(book, started.caller, started.request, lease.id)
        return lease.id
    if lease.slices:
        raise Conflict(
            f"{lease.name} is {lease.state.value}: {lease.reason}", "try again when it has ended"
        )
    book.change(lease.id, state=State.STARTING, reason="", closing=None, after=After.GONE)
    book.waiting_since[lease.id] = book.renewed[lease.id] = now
    book.capacity_changed = True
    remember(book, started.caller, started.request, lease.id)
    return lease.id


def renew(book: Book, renewed: Renewed, now: float) -> str:
    """The holder lives: the lease goes on for another `ttl`."""
    lease = found(book, renewed.lease)
    book.renewed[lease.id] = now
    return lease.id


def record(book: Book, asked: RecordingAsked, now: float) -> str:
    """Says that there is such a session: its server does the rest."""
    for lease in book.leases.values():
        for server in lease.servers:
            held = book.links[server].held.get(lease.epoch)
            if held is not None and any(each.session == asked.session for each in held.running):
                return asked.session
    raise NotFound(f"there is no session {asked.session}", "harp get sessions")


def cordon(book: Book, cordoned: Cordoned, now: float) -> str:
    """Takes a server or a device out of placement, or puts it back."""
    subject = cordoned.subject
    if subject in book.servers:
        server = replace(
            book.servers[subject], cordoned=cordoned.on, draining=cordoned.on and cordoned.drain
        )
        book.put(server)
        devices: Iterable[str] = book.devices_of[subject]
        name = subject
    elif subject in book.accelerators:
        device = replace(book.accelerators[subject], cordoned=cordoned.on)
        if not cordoned.on:
            device = replace(device, incident="")
        book.put(device)
        devices, name = {subject}, device.server
    else:
        raise NotFound(f"there is no server or device {subject}", "harp get devices")
    book.arrange(name)
    if cordoned.on and cordoned.drain:
        chosen = set(devices)
        for lease_id in sorted(book.leases_on[name]):
            lease = book.leases[lease_id]
            if lease.closing is None and chosen & {part.device for part in lease.slices}:
                after = After.QUEUED if lease.host else After.GONE
                close(book, lease, Closing.DRAIN, after, f"{subject} is being drained")
                settle(book, lease_id, now)
    return subject


def remove_server(book: Book, removed: ServerRemoved, now: float) -> str:
    """Forgets a server that holds nothing and is not connected."""
    server = book.servers.get(removed.server)
    if server is None:
        raise NotFound(f"there is no server {removed.server}", "harp get servers")
    if book.is_reachable(server.name):
        raise Conflict(f"server {server.name} is connected", "stop its agent first")
    if book.leases_on[server.name]:
        raise Conflict(f"leases hold devices of {server.name}", f"harp drain {server.name}")
    for device in sorted(book.devices_of[server.name]):
        book.drop(book.accelerators[device])
    book.drop(server)
    return server.name


def set_tenant(book: Book, event: TenantSet, now: float) -> str:
    """Makes a tenant, or gives it another quota; what it holds already stays."""
    book.put(Tenant(event.tenant, event.quota))
    book.reorder(event.tenant)
    book.capacity_changed = True
    return event.tenant


def set_profile(book: Book, event: ProfileSet, now: float) -> str:
    """Makes or changes a named size."""
    book.put(event.profile)
    return event.profile.name


def remove_profile(book: Book, event: ProfileRemoved, now: float) -> str:
    """Forgets a named size."""
    if (profile := book.profiles.get(event.name)) is None:
        raise NotFound(f"there is no profile {event.name}", "harp get profiles")
    book.drop(profile)
    return event.name


def found(book: Book, lease: str) -> Lease:
    """The lease of this id. Raises NotFound."""
    if (known := book.leases.get(lease)) is None:
        raise NotFound(f"there is no lease {lease}", "harp get leases")
    return known

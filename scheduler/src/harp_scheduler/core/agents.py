"""The scheduler's side of the link to each server's agent: inventory, reports, silence, orders."""

from __future__ import annotations

from dataclasses import replace

from harp_api.control.v1 import agent_pb2 as agent
from harp_scheduler.core.book import Book, Link, is_ordered
from harp_scheduler.core.events import Connected, Disconnected, Reported, ServerRevoked
from harp_scheduler.core.leases import settle, withdraw
from harp_scheduler.core.model import (
    MEMORY_MOST,
    WORD_MOST,
    WORDS_MOST,
    Accelerator,
    After,
    Closing,
    Lease,
    Server,
)

NUMBER_MOST = (1 << 63) - 1
"""Of an incident; the store's numbers end there."""

DEVICES_MAX = 256
"""Devices of one server, with those that it has no more; others are not taken up."""


def connect(book: Book, event: Connected, now: float) -> None:
    """An agent is here: its inventory replaces what was known of the server."""
    name, register = event.server, event.register
    old = book.servers.get(name)
    server = replace(
        old or Server(name), address=register.address[:WORD_MOST], labels=as_pairs(register.labels)
    )
    if server != old:
        book.put(server)
    link = book.links[name]
    link.connected, link.fenced = True, False
    link.taken, link.last = 0, None
    book.reordered.add(name)
    _take_inventory(book, name, register)
    _take_report(book, name, link, register.report, now)


def report(book: Book, event: Reported, now: float) -> None:
    """A connected agent says what it holds."""
    link = book.links.get(event.server)
    if link is None or not link.connected:
        return
    _take_report(book, event.server, link, event.report, now)


def disconnect(book: Book, event: Disconnected, now: float) -> None:
    """The connection to an agent is gone. What it holds goes on, until the grace is over."""
    link = book.links.get(event.server)
    if link is None or not link.connected:
        return
    link.connected = False
    book.arrange(event.server)
    settle_server(book, event.server, now)


def _take_inventory(book: Book, name: str, register: agent.Register) -> None:
    seen = set()
    before = [book.accelerators[key] for key in book.devices_of[name]]
    by_uuid = {uuid: known for known in before if (uuid := _uuid(known))}
    said = register.devices[:DEVICES_MAX]
    _make_room(book, name, {f"{name}/{device.ordinal}" for device in said})
    for device in said:
        key = f"{name}/{device.ordinal}"
        old = book.accelerators.get(key)
        if old is None and len(book.devices_of[name]) >= DEVICES_MAX:
            continue
        seen.add(key)
        new = Accelerator(
            id=key,
            server=name,
            ordinal=device.ordinal,
            kind=device.kind[:WORD_MOST],
            model=device.model[:WORD_MOST],
            memory=min(device.memory, MEMORY_MOST),
            labels=as_pairs(device.labels),
            cordoned=old.cordoned if old else False,
            fault=device.fault[:WORD_MOST],
            version=old.version if old else 0,
        )
        # What has happened to a device is true of it whatever its number is now.
        if same := by_uuid.get(_uuid(new)) if _uuid(new) else old:
            new = replace(new, incident=same.incident, incident_number=same.incident_number)
        if new != old:
            book.put(new)
    for key in sorted(book.devices_of[name] - seen):
        gone = book.accelerators[key]
        if gone.present:
            book.put(replace(gone, present=False))
    book.arrange(name)


def _make_room(book: Book, name: str, wanted: set[str]) -> None:
    """Forgets as many devices that a server has no more as it takes for those wanted to have room:
    of which nothing is held, and nothing known that is to outlive their absence."""
    known = book.devices_of[name]
    too_many = len(known | wanted) - DEVICES_MAX
    if too_many <= 0:
        return
    held = {part.device for lease in book.leases_on[name] for part in book.leases[lease].slices}
    gone = [book.accelerators[key] for key in sorted(known - wanted - held)]
    forgotten = [device for device in gone if not device.cordoned and not device.incident_number]
    for device in forgotten[:too_many]:
        book.drop(device)


def _take_report(book: Book, name: str, link: Link, said: agent.Report, now: float) -> None:
    link.heard = now
    last, link.last = link.last, said
    if last is not None and says_the_same(said, last):
        return  # a heartbeat: most are
    # What was taken of an earlier scheduler's orders says nothing about this one's.
    taken = said.revision if said.term == book.term else 0
    if taken < link.taken:
        return  # made before the last one
    link.taken = taken
    before, link.held = link.held, {held.epoch: held for held in said.leases}
    _tell_of_sessions(book, before, link.held)
    _take_health(book, name, said)
    settle_server(book, name, now)


def _take_health(book: Book, name: str, said: agent.Report) -> None:
    changed = False
    for key in sorted(book.devices_of[name]):
        old = new = book.accelerators[key]
        if new.ordinal in said.faults:
            new = replace(new, fault=said.faults[new.ordinal][:WORD_MOST])
        if new.ordinal in said.incidents:
            incident = said.incidents[new.ordinal]
            number = min(incident.number, NUMBER_MOST)
            if number != new.incident_number:
                new = replace(new, incident=incident.cause[:WORD_MOST], incident_number=number)
        if new != old:
            book.put(new)
            changed = True
    if changed:
        book.arrange(name)


def _uuid(device: Accelerator) -> str:
    return dict(device.labels).get("uuid", "")


def sessions_left(book: Book, lease: Lease, server: str) -> int | None:
    """How many sessions of a lease its tenant's quota allows on a server; None: any number."""
    tenant = book.tenants.get(lease.tenant)
    if tenant is None or tenant.quota.sessions is None:
        return None
    elsewhere = book.sessions_of(lease.tenant) - book.links[server].sessions(lease)
    return max(0, tenant.quota.sessions - elsewhere)


def says_the_same(report: agent.Report, last: agent.Report) -> bool:
    """Whether nothing has changed since the last report but that it is another one."""
    return (
        (report.term, report.revision) == (last.term, last.revision)
        and report.leases == last.leases
        and report.faults == last.faults
        and report.incidents == last.incidents
    )


def _tell_of_sessions(
    book: Book, before: dict[int, agent.Held], after: dict[int, agent.Held]
) -> None:
    """Has servers know how many sessions are left for a tenant whose quota counts them."""
    used = (
        {(held.epoch, held.lease, held.sessions) for held in reported.values() if held.sessions}
        for reported in (before, after)
    )
    changed = {lease for _, lease, _ in set.symmetric_difference(*used)}
    for tenant in {book.leases[name].tenant for name in changed if name in book.leases}:
        if book.tenants[tenant].quota.sessions is not None:
            book.reorder(tenant)


def settle_server(book: Book, name: str, now: float) -> None:
    """Brings all leases on a server to what is known now."""
    for lease in sorted(book.leases_on[name]):
        settle(book, lease, now)


def fence_silent(book: Book, limit: float, now: float) -> None:
    """Gives up servers that were silent for `limit` seconds: by then they have ended their
    sessions by themselves. Their leases are lost."""
    for name, link in book.links.items():
        if link.connected or link.fenced or now - link.heard <= limit:
            continue
        _fence(book, name, f"server {name} was away for too long", now)


def revoke(book: Book, event: ServerRevoked, now: float) -> None:
    """Gives up a server that is not trusted any more, whether or not it ends what it holds: nothing
    is granted there until it has joined again, and then it first gets the orders of that time."""
    link = book.links.get(event.server)
    if link is None:
        return
    link.connected = False
    _fence(book, event.server, f"server {event.server} was revoked", now)
    book.arrange(event.server)


def _fence(book: Book, name: str, reason: str, now: float) -> None:
    """What a server holds is lost."""
    link = book.links[name]
    link.fenced = True
    link.held = {}
    for lease_id in sorted(book.leases_on[name]):
        lease = book.leases[lease_id]
        if lease.closing is not Closing.FORCE:
            after = lease.after if lease.closing is not None else After.LOST
            withdraw(book, lease, after, reason)
        settle(book, lease_id, now)


def next_orders(book: Book, name: str, grace: float) -> agent.Orders:
    """The leases that a server is to hold, under the next revision."""
    link = book.links[name]
    link.revision += 1
    orders = agent.Orders(term=book.term, revision=link.revision, grace_ms=round(1000 * grace))
    for lease_id in sorted(book.leases_on[name]):
        lease = book.leases[lease_id]
        if not is_ordered(lease):
            link.withdrawn.setdefault(lease_id, link.revision)
            continue
        order = orders.leases.add(
            lease=lease.id,
            epoch=lease.epoch,
            owners=[lease.owner, *lease.users],
            closed=lease.closing is not None,
            sessions_most=sessions_left(book, lease, name),
        )
        for part in lease.slices:
            device = book.accelerators[part.device]
            if device.server == name:
                order.parts.add(ordinal=device.ordinal, memory=part.memory, compute=part.compute)
    link.withdrawn = {
        lease: revision
        for lease, revision in link.withdrawn.items()
        if lease in book.leases_on[name]
    }
    return orders


def as_pairs(labels: object) -> tuple[tuple[str, str], ...]:
    """A map of labels as a value that can be compared and hashed; what is too much of it, or too
    long, is cut off."""
    items = sorted(dict(labels).items())[:WORDS_MOST]  # type: ignore[call-overload]
    return tuple((name[:WORD_MOST], value[:WORD_MOST]) for name, value in items)

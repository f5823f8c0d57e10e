"""The queue: which waiting leases get slices now.

Leases are tried by priority, then in the order of their arrival. One that does not fit is passed
over by those behind it, until it has waited for `PATIENCE`; from then on nothing of its kind that
is behind it is granted, so that a large demand is not starved by small ones.
"""

from __future__ import annotations

from dataclasses import replace

from harp_scheduler.core.book import Book
from harp_scheduler.core.model import Lease, Quota, State
from harp_scheduler.core.placement.model import Demand, Placed, Refusal, Slice

PATIENCE = 60.0
"""Seconds."""


def grant_waiting(book: Book, now: float) -> None:
    """Grants what can be granted."""
    if not book.capacity_changed:
        return
    book.capacity_changed = False
    refused: dict[Demand, str] = {}
    blocked: dict[str, str] = {}
    for _, _, name in tuple(book.waiting):
        lease = book.leases[name]
        kind = lease.demand.kind
        reason = beyond_quota(book, lease) or blocked.get(kind) or refused.get(lease.demand)
        if not reason:
            found = book.placement.place(lease.demand)
            if isinstance(found, Placed):
                grant(book, lease, found, now)
                continue
            reason = refused[lease.demand] = describe(found)
        since = book.waiting_since.setdefault(name, now)
        if now - since >= PATIENCE and kind not in blocked and not beyond_quota(book, lease):
            blocked[kind] = f"{lease.name} has waited for longer and comes first"
        book.change(name, reason=reason)


def grant(book: Book, lease: Lease, found: Placed, now: float) -> None:
    """Gives a lease its slices, under a new epoch."""
    book.waiting_since.pop(lease.id, None)
    book.granted[lease.id] = book.renewed[lease.id] = now
    for device in {part.device for part in found.slices}:
        known = book.accelerators[device]
        book.put(replace(known, version=known.version + 1))
    state = State.STARTING if lease.state == State.STARTING else State.ATTACHING
    book.change(
        lease.id, state=state, reason="", slices=tuple(found.slices), epoch=book.next_epoch()
    )


def describe(refusal: Refusal) -> str:
    return f"no capacity: {refusal.reason}"


def beyond_quota(book: Book, lease: Lease) -> str:
    """Why a lease's tenant cannot have it now, in words; empty where it can."""
    tenant = book.tenants.get(lease.tenant)
    if tenant is None:
        return ""
    usage, quota, demand = book.usage[lease.tenant], tenant.quota, lease.demand
    for what, held, wanted, limit in (
        ("devices", usage.devices, demand.count, quota.devices),
        ("bytes of memory", usage.memory, demand.count * demand.memory, quota.memory),
        ("per mille of compute", usage.compute, demand.count * demand.compute, quota.compute),
    ):
        if limit is not None and held + wanted > limit:
            return f"the tenant holds {held} of {limit} {what}, and {wanted} are wanted"
    return ""


def never_in_quota(quota: Quota, demand: Demand) -> str:
    """Why a demand can never be granted to a tenant with this quota; empty where it can."""
    for what, wanted, limit in (
        ("devices", demand.count, quota.devices),
        ("bytes of memory", demand.count * demand.memory, quota.memory),
        ("per mille of compute", demand.count * demand.compute, quota.compute),
    ):
        if limit is not None and wanted > limit:
            return f"{wanted} {what} are wanted, and the tenant may hold {limit}"
    return ""


def total(slices: tuple[Slice, ...]) -> tuple[int, int]:
    """Memory in bytes and compute in per mille of all slices together."""
    return sum(part.memory for part in slices), sum(part.compute for part in slices)

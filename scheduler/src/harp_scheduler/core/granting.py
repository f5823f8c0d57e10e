"""The queue: which waiting leases get slices now.

Leases are tried by priority, then in the order of their arrival. One that does not fit is passed
over by those behind it, until it has waited for `Book.patience`; from then on nothing of its kind
that is behind it is granted, so that a large demand is not starved by small ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harp_scheduler.core.book import Book, Usage
from harp_scheduler.core.model import Lease, Quota, State
from harp_scheduler.core.placement.model import Demand, Placed, Refusal, Slice


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
            if isinstance(found, Refusal):
                reason = refused[lease.demand] = f"no capacity: {found.reason}"
            elif not (reason := beyond_quota(book, lease, found.slices)):
                grant(book, lease, found, now)
                continue
        since = book.waiting_since.setdefault(name, now)
        # Who waits for its tenant's own quota keeps nobody back.
        if now - since >= book.patience and reason == refused.get(lease.demand):
            # Without its name, which may be another tenant's.
            blocked.setdefault(kind, "a lease that has waited for longer comes first")
        book.waits_because(name, reason)


def grant(book: Book, lease: Lease, found: Placed, now: float) -> None:
    """Gives a lease its slices, under a new epoch."""
    book.waiting_since.pop(lease.id, None)
    book.waits_for.pop(lease.id, None)
    book.renewed[lease.id] = now
    for device in {part.device for part in found.slices}:
        known = book.accelerators[device]
        book.put(replace(known, version=known.version + 1))
    state = State.STARTING if lease.state == State.STARTING else State.ATTACHING
    book.change(
        lease.id,
        state=state,
        reason="",
        slices=tuple(found.slices),
        epoch=book.next_epoch(),
        granted=book.stored_time(now),
    )


def beyond_quota(book: Book, lease: Lease, slices: Sequence[Slice] = ()) -> str:
    """Why a lease's tenant cannot have it now, in words; empty where it can.

    With `slices`, by what they take: a demand that names no memory takes a share of the device's.
    """
    tenant = book.tenants.get(lease.tenant)
    if tenant is None:
        return ""
    return beyond(tenant.quota, book.usage[lease.tenant], lease.demand, slices)


def beyond(quota: Quota, held: Usage, demand: Demand, slices: Sequence[Slice] = ()) -> str:
    """What of a quota is less than what is held and what is wanted together, in words."""
    memory = sum(part.memory for part in slices) or demand.count * demand.memory
    for what, has, wanted, limit in (
        ("devices", held.devices, demand.count, quota.devices),
        ("bytes of memory", held.memory, memory, quota.memory),
        ("per mille of compute", held.compute, demand.count * demand.compute, quota.compute),
    ):
        if limit is not None and has + wanted > limit:
            return f"the tenant holds {has} of {limit} {what}, and {wanted} are wanted"
    return ""

"""Records of every type: any, by hypothesis, and a few fixed ones."""

from __future__ import annotations

from hypothesis import strategies as st

from harp_scheduler.core.book import Key, Record
from harp_scheduler.core.model import (
    Accelerator,
    After,
    Closing,
    Lease,
    Profile,
    Quota,
    Request,
    Server,
    State,
    Tenant,
)
from harp_scheduler.core.placement.model import Demand, Slice

# Any text that protobuf can carry: a lone surrogate it cannot.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
whole = st.integers(0, 2**63 - 1)
seconds = st.floats(0, allow_nan=False, allow_infinity=False)
pairs = st.lists(st.tuples(texts, texts), max_size=3).map(tuple)
few_texts = st.lists(texts, max_size=3).map(tuple)
demands = st.builds(
    Demand,
    kind=texts,
    count=st.integers(1, 1000),
    models=few_texts,
    memory=whole,
    compute=st.integers(1, 1000),
    labels=pairs,
)
slices = st.builds(Slice, device=texts, memory=whole, compute=st.integers(0, 1000))

RECORDS: dict[type, st.SearchStrategy[Record]] = {
    Server: st.builds(
        Server,
        name=texts,
        address=texts,
        labels=pairs,
        cordoned=st.booleans(),
        draining=st.booleans(),
    ),
    Accelerator: st.builds(
        Accelerator,
        id=texts,
        server=texts,
        ordinal=st.integers(0, 2**32 - 1),
        kind=texts,
        model=texts,
        memory=whole,
        labels=pairs,
        cordoned=st.booleans(),
        fault=texts,
        present=st.booleans(),
        version=whole,
    ),
    Lease: st.builds(
        Lease,
        id=texts,
        tenant=texts,
        owner=texts,
        demand=demands,
        order=whole,
        name=texts,
        host=texts,
        users=few_texts,
        priority=st.integers(-(2**31), 2**31 - 1),
        ttl=seconds,
        longest=seconds,
        state=st.sampled_from(State),
        reason=texts,
        slices=st.lists(slices, max_size=3).map(tuple),
        epoch=whole,
        closing=st.none() | st.sampled_from(Closing),
        after=st.sampled_from(After),
    ),
    Tenant: st.builds(
        Tenant,
        name=texts,
        quota=st.builds(
            Quota,
            devices=st.none() | whole,
            memory=st.none() | whole,
            compute=st.none() | whole,
            leases=st.none() | whole,
            longest=st.none() | seconds,
        ),
    ),
    Profile: st.builds(Profile, name=texts, demand=demands),
    Request: st.builds(Request, caller=texts, id=texts, subject=texts),
}


def key_of(record: Record) -> Key:
    """As the core's book calls it."""
    match record:
        case Request(caller=caller, id=request):
            return "Request", f"{caller} {request}"
        case Accelerator(id=name) | Lease(id=name):
            return type(record).__name__, name
    return type(record).__name__, record.name


def changes(*records: Record) -> dict[Key, Record | None]:
    return {key_of(record): record for record in records}


DEVICE = Accelerator("gpu1/0", "gpu1", 0, "gpu", "soft", 1 << 30, (("cc", "8.6"),))
POOL: tuple[Record, ...] = (
    Server("gpu1", "gpu1:7443", (("rack", "7"),)),
    DEVICE,
    Tenant("research", Quota(devices=4, longest=3600.5)),
    Profile("half", Demand(compute=500, memory=1 << 29)),
    Lease(
        "lease-1",
        "research",
        "spiffe://lab/tenant/research/user/alice",
        Demand(models=("soft",), labels=(("rack", "7"),)),
        1,
        name="training",
        host="laptop",
        users=("alice",),
        state=State.IN_USE,
        slices=(Slice("gpu1/0", 1 << 30, 1000),),
        epoch=5,
        closing=Closing.DRAIN,
    ),
    Request("spiffe://lab/tenant/research/user/alice", "attach 1", "lease-1"),
)
"""One of each."""

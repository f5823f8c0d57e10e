"""Records of every type: any, by hypothesis, and a few fixed ones."""

from __future__ import annotations

from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from harp_scheduler.core.book import Key, Record
from harp_scheduler.core.model import (
    Accelerator,
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
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: texts,
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
}
WHOLE = st.integers(1, 2**63 - 1)
POSITIVE = {"count": st.integers(1, 2**31), "compute": st.integers(1, 1000)}
POSITIVE |= dict.fromkeys(("memory", "cpu_milli", "host_memory"), WHOLE)
"""What a demand refuses to be made with otherwise."""


def any_of(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a type, whatever fields it has or will have."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in PLAIN:
        return PLAIN[kind]
    if kind is NoneType:
        return st.none()
    if origin in (Union, UnionType):
        return st.one_of(map(any_of, arguments))
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is frozenset:
        return st.frozensets(any_of(arguments[0]), max_size=3)
    if origin is tuple and arguments[1:] == (...,):
        return st.lists(any_of(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(any_of, arguments))
    if is_dataclass(kind):
        hints = {name: any_of(hint) for name, hint in get_type_hints(kind).items()}
        return st.builds(kind, **(hints | (POSITIVE if kind is Demand else {})))
    return st.sampled_from(list(kind))


RECORDS = get_args(Record)


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

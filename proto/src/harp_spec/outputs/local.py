"""Local mode of the interposer: the driver's functions under their own types, the functions that
keep a quota, and every function between hooks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from harp_spec import facts, rust, sources
from harp_spec.model import Because
from harp_spec.outputs.exports import (
    PER_THREAD_TWIN,
    Export,
    all_functions,
    all_symbols,
    supported_export,
)
from harp_spec.render import Output, rust_file
from harp_spec.spec.aliases import SAME_ABI
from harp_spec.spec.all import REGISTRY
from harp_spec.spec.charges import charges

FOLDER = "interposer/src/generated"


@dataclass(frozen=True)
class Typed:
    """A symbol with its number and the parameters that cuda.h gives it."""

    name: str
    number: int
    parameters: str
    #: Rust for the way and the number of the bytes that it moves, where the parameters say it.
    moves: str | None


def outputs() -> Iterator[Output]:
    used = sources.local_driver_functions_used()
    yield rust_file(
        f"{FOLDER}/local_driver.rs",
        "local_driver.rs.j2",
        "proto/abi and interposer/src/local",
        functions=[function for function in typed() if function.name in used],
    )
    yield rust_file(
        f"{FOLDER}/hooked.rs",
        "hooked.rs.j2",
        "proto/abi and proto/src/harp_spec/spec",
        functions=typed(),
        waits=[number for number, name in enumerate(all_symbols()) if waits(name)],
    )
    yield rust_file(
        f"{FOLDER}/quota.rs",
        "quota.rs.j2",
        "interposer/src/local/quota",
        functions=[(number, export) for number, export in enumerate(quota()) if export],
    )


def typed() -> list[Typed]:
    """Every symbol whose signature is known, in the order of their numbers."""
    functions = all_functions()
    return [
        Typed(name, number, rust.parameters(functions[name]), moves(functions[name]))
        for number, name in enumerate(all_symbols())
        if name in functions
    ]


def moves(function: facts.Function) -> str | None:
    """What a function copies or sets, as an expression of its parameters."""
    kinds = {"H": "Host", "D": "Device", "A": "Device"}
    name = function.name
    if straight := re.match(r"cuMemcpy([HDA])to([HDA])", name):
        origin, target = (kinds[letter] for letter in straight.groups())
        return f"(Way::{origin}To{target}, ByteCount as u64)"
    if re.match(r"cuMemcpyPeer", name):
        return "(Way::PeerToPeer, ByteCount as u64)"
    if re.fullmatch(r"cuMemcpy(Async)?(_pts[dz]|_ptds)?", name):
        return "(between(dst, src), ByteCount as u64)"
    if shape := re.match(r"pCopy: \*const CUDA_MEMCPY([23]D)(,|$)", rust.parameters(function)):
        return f"unsafe {{ of_{shape[1].lower()}(pCopy) }}"
    if value := re.match(r"cuMemsetD(2D)?(8|16|32)", name):
        count = "Width as u64 * Height as u64" if value[1] else "N as u64"
        size = int(value[2]) // 8
        return f"(Way::Memset, {count} * {size})" if size > 1 else f"(Way::Memset, {count})"
    return None


def quota() -> list[Export | None]:
    """By number, what keeps the quota in the place of the driver's function."""
    kept = sources.quota_functions()
    if forgotten := charges().keys() - kept:
        raise ValueError(f"interposer/src/local/quota does not charge {sorted(forgotten)}")
    implemented = {name: f"quota::{name}" for name in kept}
    functions = all_functions()
    return [
        supported_export(functions[name], implemented) if name in functions else None
        for name in all_symbols()
    ]


def waits(symbol: str) -> bool:
    """Whether a call is one that waits for the device, under any of its names."""
    twin = PER_THREAD_TWIN.fullmatch(symbol)
    name = twin[1] if twin else symbol
    call = REGISTRY.calls.get(SAME_ABI.get(name, name))
    if call is None:
        return False
    asked = (Because.DATA, Because.SYNCHRONISE)
    carriers = [REGISTRY.calls[carrier] for carrier in call.via]
    return any(each.waits or each.because in asked for each in (call, *carriers))

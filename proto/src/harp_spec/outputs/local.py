"""Local mode of the interposer: the driver's functions under their own types, the functions that
keep a quota, and every function between hooks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harp_spec import rust, sources
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
        Typed(name, number, rust.parameters(functions[name]))
        for number, name in enumerate(all_symbols())
        if name in functions
    ]


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

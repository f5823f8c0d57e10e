"""Export lists of the two libcuda.so.1 of this project: the soft GPU's and the interposer's.

Every function of every header exists as a symbol. Those that the library implements (a
``pub unsafe fn cuX(`` in its ``src/api``) are called; the others answer CUDA_ERROR_NOT_SUPPORTED.
The interposer's symbols are entries that jump to one of several functions: in a pool to those of
``remote.rs``, in local mode to the driver's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from harp_spec import facts, rust, sources
from harp_spec.outputs import forward
from harp_spec.render import Output, rust_file
from harp_spec.spec.aliases import SAME_ABI

PER_THREAD_TWIN = re.compile(r"(cu\w+?)_(ptsz|ptds)")


@dataclass(frozen=True)
class Export:
    """A supported symbol: the function it calls and how its arguments are handed on."""

    symbol: str
    parameters: str
    call: str


def outputs() -> Iterator[Output]:
    forwards = {name: f"crate::generated::forward::{name}" for name in forward.names()}
    yield functions_file(
        "softgpu/driver",
        "exports",
        "The C symbols of this libcuda.so.1.",
        paths_in_api("softgpu/driver"),
        exported=True,
    )
    yield functions_file(
        "interposer",
        "remote",
        "What the symbols mean in a pool.",
        forwards | paths_in_api("interposer"),
        exported=False,
    )
    yield rust_file(
        "interposer/src/generated/exports.rs", "entries.rs.j2", "proto/abi", symbols=all_symbols()
    )
    yield module_file("softgpu/driver", "exports")
    yield module_file(
        "interposer", "exports", "forward", "hooked", "local_driver", "quota", "remote"
    )


def module_file(crate: str, *modules: str) -> Output:
    path = f"{crate}/src/generated/mod.rs"
    return rust_file(path, "generated_mod.rs.j2", "proto/src/harp_spec", modules=modules)


def functions_file(
    crate: str, module: str, title: str, implemented: dict[str, str], *, exported: bool
) -> Output:
    """The functions behind the symbols; ``exported``: they are the symbols themselves."""
    supported, unsupported = [], []
    for function in all_functions().values():
        export = supported_export(function, implemented)
        supported.append(export) if export else unsupported.append(function.name)
    return rust_file(
        f"{crate}/src/generated/{module}.rs",
        "exports.rs.j2",
        f"proto/abi and {crate}/src/api",
        title=title,
        exported=exported,
        entries="" if exported else "super::exports::",
        supported=sorted(supported, key=lambda export: export.symbol),
        unsupported=sorted(unsupported + list(interop_names())),
    )


def paths_in_api(crate: str) -> dict[str, str]:
    """Rust path of every function that the crate's ``src/api`` implements."""
    return {name: f"crate::api::{name}" for name in sources.api_functions(crate)}


@cache
def all_functions() -> dict[str, facts.Function]:
    """Every function of every committed release, the newest declaration of each."""
    merged: dict[str, facts.Function] = {}
    for release in facts.releases():
        merged |= facts.load(release).functions
    return dict(sorted(merged.items()))


def all_symbols() -> list[str]:
    """Every symbol in ascending order."""
    return sorted(set(all_functions()) | interop_names())


def interop_names() -> set[str]:
    return {name for release in facts.releases() for name in facts.load(release).interop}


def implementation_of(name: str, implemented: dict[str, str]) -> str | None:
    return implemented.get(name) or implemented.get(SAME_ABI.get(name, ""))


def supported_export(function: facts.Function, implemented: dict[str, str]) -> Export | None:
    parameters = rust.parameters(function)
    arguments = [rust.identifier(name) for name, _ in function.params]
    if path := implementation_of(function.name, implemented):
        return Export(function.name, parameters, f"{path}({', '.join(arguments)})")
    twin = PER_THREAD_TWIN.fullmatch(function.name)
    path = twin and implementation_of(twin[1], implemented)
    if not path:
        return None
    streams = [i for i, (_, c_type) in enumerate(function.params) if c_type == "CUstream"]
    if streams:
        for i in streams:
            arguments[i] = f"per_thread({arguments[i]})"
        return Export(function.name, parameters, f"{path}({', '.join(arguments)})")
    call = f"per_thread_stream(|| {path}({', '.join(arguments)}))"
    return Export(function.name, parameters, call)


def check_aliases() -> None:
    """The same signature under both names, or the alias would corrupt its caller."""
    functions = all_functions()
    aliases = facts.newest().aliases
    for old, new in SAME_ABI.items():
        signatures = [
            [rust.resolve(c_type, aliases) for _, c_type in functions[name].params]
            for name in (old, new)
        ]
        if signatures[0] != signatures[1]:
            raise ValueError(f"spec/aliases.py: {old} and {new} differ: {signatures}")


check_aliases()

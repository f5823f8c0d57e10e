"""crates/cuda-abi: types, codes, names and the cuGetProcAddress map."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harp_spec import facts, rust
from harp_spec.render import Output, rust_file
from harp_spec.spec.error_strings import ERROR_STRINGS

FOLDER = "crates/cuda-abi/src/generated"

#: Macros that are stream handles rather than numbers.
STREAM_CONSTANTS = ("CU_STREAM_LEGACY", "CU_STREAM_PER_THREAD")

#: Enums whose members are offered as (name, number) tables, for snapshots and for printing.
ATTRIBUTE_TABLES = {
    "DEVICE_ATTRIBUTES": "CUdevice_attribute",
    "FUNCTION_ATTRIBUTES": "CUfunction_attribute",
    "POINTER_ATTRIBUTES": "CUpointer_attribute",
    "POOL_ATTRIBUTES": "CUmemPool_attribute",
}

MACHINE_ALIGN_LIMIT = 16


def outputs() -> Iterator[Output]:
    release = facts.newest()
    source = f"proto/abi/cuda-{release.version}.json"
    yield rust_file(
        f"{FOLDER}/types.rs",
        "abi_types.rs.j2",
        source,
        tags=sorted(set(release.handles.values())),
        handles=release.handles,
        aliases={name: rust.type_name(target) for name, target in release.aliases.items()},
        callbacks={
            name: (
                ", ".join(map(rust.type_name, callback["params"])),
                "" if callback["returns"] == "void" else rust.type_name(callback["returns"]),
            )
            for name, callback in release.callbacks.items()
        },
        records=[record_context(release, record) for record in release.structs.values()],
    )
    yield rust_file(
        f"{FOLDER}/constants.rs",
        "abi_constants.rs.j2",
        source,
        enums=[enum_context(name, values) for name, values in release.enums.items()],
        constants={
            name: ("i32" if value < 0 else "u32", value)
            for name, value in release.constants.items()
            if name not in STREAM_CONSTANTS
        },
        stream_constants={name: release.constants[name] for name in STREAM_CONSTANTS},
    )
    yield rust_file(
        f"{FOLDER}/names.rs",
        "abi_names.rs.j2",
        source,
        errors=error_rows(release),
        attributes={
            table: attribute_rows(release, enum) for table, enum in ATTRIBUTE_TABLES.items()
        },
    )
    yield rust_file(
        f"{FOLDER}/proc_address_rows.rs",
        "abi_proc_address.rs.j2",
        "proto/abi/procaddress.tsv",
        tables={
            "DEFAULT": [row for row in facts.proc_addresses() if not row.twin],
            "PER_THREAD": [row for row in facts.proc_addresses() if row.twin],
        },
    )
    yield rust_file(f"{FOLDER}/mod.rs", "abi_mod.rs.j2", "proto/abi")


def enum_context(name: str, values: dict[str, int]) -> dict[str, Any]:
    signed = min(values.values(), default=0) < 0
    return {"name": name, "type": "i32" if signed else "u32", "values": values}


def record_context(release: facts.Release, record: facts.Record) -> dict[str, Any]:
    return {
        "name": record.name,
        "kind": record.kind,
        "size": record.size,
        "align": record.align,
        # C++ alignas in the header, beyond what the fields ask for.
        "forced_align": record.align if record.align > MACHINE_ALIGN_LIMIT else None,
        "debug": not holds_union(release, record),
        "fields": [
            {"name": rust.identifier(f.name), "type": rust.type_name(f.type), "offset": f.offset}
            for f in record.fields
        ],
    }


def holds_union(release: facts.Release, record: facts.Record) -> bool:
    if record.kind == "union":
        return True
    inner = (rust.resolve(f.type.split("[")[0], release.aliases) for f in record.fields)
    return any(holds_union(release, release.structs[t]) for t in inner if t in release.structs)


def error_rows(release: facts.Release) -> list[tuple[int, str, str]]:
    codes = release.enums["CUresult"]
    if missing := set(codes.values()) ^ set(ERROR_STRINGS):
        raise ValueError(f"spec/error_strings.py and CUresult differ in {sorted(missing)}")
    return sorted((code, name, ERROR_STRINGS[code]) for name, code in codes.items())


def attribute_rows(release: facts.Release, enum: str) -> list[tuple[int, str]]:
    rows: dict[int, str] = {}
    for name, number in release.enums[enum].items():
        if not name.endswith("_MAX"):
            rows.setdefault(number, name)
    return sorted(rows.items())

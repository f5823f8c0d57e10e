"""server/worker: decoding and execution of calls, and the table of driver functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harp_spec import facts, rust, sources
from harp_spec.model import (
    Absent,
    Call,
    Create,
    Data,
    Device,
    Launchable,
    Length,
    Out,
    Param,
    Stream,
    Sync,
    Text,
    Use,
    Value,
    number_type,
    pointee,
)
from harp_spec.render import Output, rust_file
from harp_spec.spec.aliases import SAME_ABI
from harp_spec.spec.all import REGISTRY

SOURCE = "proto/src/harp_spec/spec"
FOLDER = "server/worker/src/generated"


@dataclass(frozen=True)
class Execution:
    """What the template needs to write the execution of one call."""

    call: Call
    #: (variable, look-up, C type) of every handle that the call uses.
    lookups: tuple[tuple[str, str, str], ...]
    #: Device numbers, which are the session's and become the driver's.
    devices: tuple[str, ...]
    #: (variable, C type, initial value) of everything the driver writes.
    locals: tuple[tuple[str, str, str], ...]
    arguments: tuple[str, ...]
    #: (kind, wire name) of the handle that the call makes, if it makes one.
    creates: tuple[str, str] | None
    #: (kind, wire name) of the handles that are gone afterwards.
    destroys: tuple[tuple[str, str], ...]
    outputs: tuple[str, ...]

    @property
    def notes_failure(self) -> bool:
        """Nobody waits for a one-way create: its handle must remember why it failed."""
        return self.creates is not None and self.call.sync is Sync.ONE_WAY


def outputs() -> Iterator[Output]:
    calls = REGISTRY.wire_calls()
    written = sources.worker_calls()
    yield rust_file(
        f"{FOLDER}/dispatch.rs",
        "dispatch.rs.j2",
        f"{SOURCE} and server/worker/src/calls",
        executions=[execution(call) for call in calls if call.server is None],
        custom=[call for call in calls if call.server is not None and call.name in written],
        missing=[call for call in calls if call.server is not None and call.name not in written],
    )
    yield rust_file(
        f"{FOLDER}/driver.rs",
        "driver.rs.j2",
        SOURCE,
        functions=[
            {
                "name": function.name,
                "parameters": ", ".join(rust.type_name(c_type) for _, c_type in function.params),
                "symbols": symbols_of(function.name),
            }
            for function in driver_functions()
        ],
    )
    yield rust_file(
        f"{FOLDER}/mod.rs", "generated_mod.rs.j2", SOURCE, modules=["dispatch", "driver"]
    )


def driver_functions() -> list[facts.Function]:
    executed = {call.name for call in REGISTRY.wire_calls() if call.server is None}
    names = executed | sources.driver_functions_used()
    functions = facts.newest().functions
    return [functions[name] for name in sorted(names)]


def symbols_of(name: str) -> list[str]:
    """The symbol, and the older one that an older driver has under the same signature."""
    return [name, *(old for old, new in SAME_ABI.items() if new == name)]


def execution(call: Call) -> Execution:
    params = (*call.carries, *call.params)
    created = [(p.role.kind, rust.identifier(p.name)) for p in params if isinstance(p.role, Create)]
    if len(created) > 1:
        raise ValueError(f"{call.name} makes more than one handle: execute it by hand")
    return Execution(
        call,
        lookups=tuple(lookup for p in params if (lookup := lookup_of(p))),
        devices=tuple(rust.identifier(p.name) for p in params if is_device(p)),
        locals=tuple(local for p in params if (local := local_of(p))),
        arguments=tuple(argument_of(p, call) for p in call.params),
        creates=created[0] if created else None,
        destroys=tuple(
            (p.role.kind, rust.identifier(p.name))
            for p in params
            if isinstance(p.role, Use) and p.role.destroys
        ),
        outputs=tuple(output_of(p) for p in params if isinstance(p.role, Out)),
    )


def is_device(param: Param) -> bool:
    return param.role == Value() and param.c_type == "CUdevice"


def lookup_of(param: Param) -> tuple[str, str, str] | None:
    name = rust.identifier(param.name)
    match param.role:
        case Use(kind):
            found = f"cx.handles.get(HandleKind::{kind}, args.{name})"
        case Launchable():
            found = f"cx.handles.get_function(args.{name})"
        case Stream():
            found = f"cx.handles.get_stream(args.{name})"
        case _:
            return None
    return name, found, rust.type_name(param.c_type)


def local_of(param: Param) -> tuple[str, str, str] | None:
    name = rust.identifier(param.name)
    match param.role:
        case Create():
            handle = param.c_type if not param.c_type.endswith("*") else pointee(param.c_type)
            return name, rust.type_name(handle), "core::ptr::null_mut()"
        case Out():
            c_type = rust.type_name(pointee(param.c_type))
            return name, c_type, "0.0" if number_type(pointee(param.c_type)) == "f32" else "0"
    return None


def argument_of(param: Param, call: Call) -> str:
    name = rust.identifier(param.name)
    match param.role:
        case Value() if is_device(param):
            return name
        case Value():
            cast = " as usize" if number_type(param.c_type) == "usize" else ""
            return f"args.{name}{cast}"
        case Use() | Launchable() | Stream():
            return name
        case Device():
            return f"args.{name}"
        case Create() | Out():
            return f"&mut {name}"
        case Text():
            return f"args.{name}.as_ptr()"
        case Data():
            return f"args.{name}.as_ptr().cast()"
        case Length():
            data = next(p for p in call.params if p.role == Data(param.name))
            return f"args.{rust.identifier(data.name)}.len()"
        case Absent():
            return "core::mem::zeroed()"
    raise AssertionError(param)


def output_of(param: Param) -> str:
    name = rust.identifier(param.name)
    return f"{name} as u64" if number_type(pointee(param.c_type)) == "usize" else name

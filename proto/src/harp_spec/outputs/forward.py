"""interposer: the sending half of every call whose wire form follows from its C parameters."""

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
    Pitch,
    Stream,
    Text,
    Use,
    Value,
    length_in_rust,
    number_type,
    pointee,
)
from harp_spec.render import Output, rust_file
from harp_spec.spec.all import REGISTRY

SOURCE = "proto/src/harp_spec/spec"
PATH = "interposer/src/generated/forward.rs"


@dataclass(frozen=True)
class Forward:
    """What the template needs to write one function."""

    call: Call
    parameters: str
    #: Statements that find the call's session, and may refuse the call before it is sent.
    checks: tuple[str, ...]
    #: Arguments of the encoding function.
    arguments: tuple[str, ...]
    #: Statements that store the reply's outputs.
    stores: tuple[str, ...]
    #: Statements after the call succeeded.
    afterwards: tuple[str, ...]
    #: Statements after it failed.
    undo: tuple[str, ...]


def outputs() -> Iterator[Output]:
    wanted = names() | sources.forwards_used()
    calls = [call for call in REGISTRY.wire_calls() if call.has_forward and call.name in wanted]
    functions = facts.newest().functions
    yield rust_file(
        PATH,
        "forward.rs.j2",
        SOURCE,
        forwards=[forward(call) for call in calls],
        default_stream=[
            {
                "name": call.name,
                "stream_form": call.on_default_stream,
                "parameters": rust.parameters(functions[call.name]),
                "arguments": [rust.identifier(name) for name, _ in functions[call.name].params],
            }
            for call in REGISTRY.calls.values()
            if call.on_default_stream
        ],
    )


def names() -> set[str]:
    """The functions that forward.rs offers to exports whose client side is not hand-written."""
    return {
        call.name
        for call in REGISTRY.calls.values()
        if call.client is None and (call.has_forward or call.on_default_stream)
    }


def forward(call: Call) -> Forward:
    params = (*call.carries, *call.params)
    makes = call.client is None
    routes = ["context"] if call.needs_context else []
    routes += [p.name for p in params if isinstance(p.role, Use | Launchable | Stream)]
    routes += [p.name for p in params if isinstance(p.role, Create) and not makes]
    #: The first thing that says whose the call is; every other handle has to be of that session.
    route = routes[0] if routes else None
    checks = ["let session = checks::context()?;"] if call.needs_context else []
    checks += [check for p in params for check in checks_of(call, p, p.name == route)]
    checks += [check for param in params for check in span_checks(param)]
    # Last, so that a call that is refused has made nothing.
    checks += [line for p in params for line in new_handle(call, p, p.name == route)]
    parameters = [f"{rust.identifier(p.name)}: {rust.type_name(p.c_type)}" for p in params]
    return Forward(
        call,
        ", ".join(parameters if route else ["session: &Session", *parameters]),
        tuple(checks),
        tuple(argument for p in params if (argument := argument_of(p))),
        tuple(store_of(p, p.role.optional) for p in params if isinstance(p.role, Out)),
        tuple(s for p in params if makes for s in afterwards_of(p)),
        tuple(s for p in params if makes for s in undo_of(p)),
    )


def checks_of(call: Call, param: Param, routes: bool) -> list[str]:
    """Statements about one parameter; where it ``routes``, the session is its handle's."""
    name = rust.identifier(param.name)
    match param.role:
        case Pitch(row=row, rows=rows, unit=unit):
            wrong = f"({name} as u64) < {length_in_rust(row)}"
            if unit > 1:
                wrong = f"({wrong} || !{name}.is_multiple_of({unit}))"
            return [f"refuse({length_in_rust(rows)} > 1 && {wrong})?;"]
        case Value(allowed) if allowed is not None:
            return [f"refuse({name} & !({allowed}) != 0)?;"]
        case Device(aligned=unit) if unit > 1:
            return [f"refuse(!{name}.is_multiple_of({unit}))?;"]
        case Use(kind) if routes:
            return [f"let (session, {name}_id) = checks::live(HandleKind::{kind}, {name})?;"]
        case Use(kind):
            return [f"let {name}_id = checks::live_in(session, HandleKind::{kind}, {name})?;"]
        case Launchable() if routes:
            return [
                f"let {name}_id = launchable({name})?.id;",
                f"let session = sessions()?.of({name}_id);",
            ]
        case Launchable():
            return [f"let {name}_id = checks::belongs(session, launchable({name})?.id)?;"]
        case Stream() if routes:
            return [f"let (session, {name}_id) = checks::stream({name})?;"]
        case Stream():
            return [f"let {name}_id = checks::stream_in(session, {name})?;"]
        case Create() if call.client is None:
            return [f"refuse({name}.is_null())?;"]
        case Text():
            return [
                f"refuse({name}.is_null())?;",
                f"let {name} = unsafe {{ CStr::from_ptr({name}) }};",
            ]
        case Data(length):
            length = rust.identifier(length)
            return [
                f"refuse({name}.is_null())?;",
                f"let {name} = unsafe {{ core::slice::from_raw_parts({name}.cast(), {length}) }};",
            ]
        case Out(optional=False):
            return [f"refuse({name}.is_null())?;"]
        case Absent():
            return [f"refuse({name} != Default::default())?;"]
    return []


def span_checks(param: Param) -> list[str]:
    if not isinstance(param.role, Device):
        return []
    lengths = [e for e in (param.role.reads, param.role.writes) if e]
    name = rust.identifier(param.name)
    return [
        f"checks::device_span(session, {name}, {length_in_rust(length)})?;" for length in lengths
    ]


def new_handle(call: Call, param: Param, routes: bool) -> list[str]:
    if not isinstance(param.role, Create):
        return []
    name = rust.identifier(param.name)
    if call.client is None:
        kind = param.role.kind
        return [f"let {name}_id = handles::create(HandleKind::{kind}, session.number);"]
    made = f"let {name}_id = {name} as u64;"
    return [made, f"let session = sessions()?.of({name}_id);"] if routes else [made]


def argument_of(param: Param) -> str | None:
    name = rust.identifier(param.name)
    match param.role:
        case Value():
            return f"{name} as u64" if number_type(param.c_type) == "usize" else name
        case Use() | Launchable() | Stream() | Create():
            return f"{name}_id"
        case Device() | Text() | Data():
            return name
        case Length() | Absent() | Out():
            return None
    raise AssertionError(param)


def store_of(param: Param, optional: bool) -> str:
    name = rust.identifier(param.name)
    cast = " as usize" if number_type(pointee(param.c_type)) == "usize" else ""
    store = f"unsafe {{ {name}.write_unaligned(reply.{name}{cast}) }};"
    return f"if !{name}.is_null() {{ {store} }}" if optional else store


def afterwards_of(param: Param) -> list[str]:
    name = rust.identifier(param.name)
    match param.role:
        case Create():
            c_type = rust.type_name(pointee(param.c_type))
            return [f"unsafe {{ {name}.write_unaligned({name}_id as {c_type}) }};"]
        case Use(kind, destroys=True):
            return [f"handles::destroy(HandleKind::{kind}, {name});"]
    return []


def undo_of(param: Param) -> list[str]:
    if not isinstance(param.role, Create):
        return []
    name, kind = rust.identifier(param.name), param.role.kind
    c_type = rust.type_name(pointee(param.c_type))
    return [f"handles::destroy(HandleKind::{kind}, {name}_id as {c_type});"]

"""crates/wire: call numbers, handle kinds, and the encoding of every call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harp_spec import codecs, rust
from harp_spec.model import Argument, Because, Call
from harp_spec.render import Output, rust_file
from harp_spec.spec.all import REGISTRY
from harp_spec.spec.handles import KINDS

FOLDER = "crates/wire/src/generated"
SOURCE = "proto/src/harp_spec/spec"


def outputs() -> Iterator[Output]:
    calls = REGISTRY.wire_calls()
    yield rust_file(
        f"{FOLDER}/call_ids.rs",
        "wire_call_ids.rs.j2",
        SOURCE,
        calls=calls,
        reasons=list(Because),
        because=[(why, names) for why in Because if (names := waited_for(calls, why))],
    )
    yield rust_file(
        f"{FOLDER}/handle_kinds.rs",
        "wire_handle_kinds.rs.j2",
        f"{SOURCE}/handles.py",
        kinds=list(KINDS.values()),
    )
    yield rust_file(
        f"{FOLDER}/calls.rs",
        "wire_calls.rs.j2",
        SOURCE,
        calls=[call_context(call) for call in calls],
    )
    yield rust_file(f"{FOLDER}/mod.rs", "wire_mod.rs.j2", SOURCE)


def waited_for(calls: list[Call], because: Because) -> list[str]:
    """The calls that programs wait for because of this."""
    return [call.name for call in calls if call.because is because]


def call_context(call: Call) -> dict[str, Any]:
    return {
        "name": call.name,
        "pascal": call.pascal,
        "payload": call.payload,
        "arguments": message_context(call.inputs),
        "reply": message_context(call.outputs) if call.outputs else None,
    }


def message_context(arguments: tuple[Argument, ...]) -> dict[str, Any]:
    """The fields of a struct and the parameters of the function that writes it."""
    fields = [
        {
            "name": rust.identifier(item.name),
            "type": item.codec.decoded,
            "decode": item.codec.decode,
        }
        for item in arguments
    ]
    written = [item for item in arguments if item.codec is not codecs.PAYLOAD]
    return {
        "fields": fields,
        "lifetime": "<'a>" if any("'a" in field["type"] for field in fields) else "",
        "parameters": "".join(f", {rust.identifier(i.name)}: {i.codec.given}" for i in written),
        "encode": [i.codec.encode_value(rust.identifier(i.name)) for i in written],
    }

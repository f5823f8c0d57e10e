"""proto/trace/schema.json: what recorded calls and replies hold, for readers in any language."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from harp_spec.model import Argument, Call, Create, Device, Param, Use
from harp_spec.render import Output, notice
from harp_spec.spec.all import REGISTRY
from harp_spec.spec.handles import KINDS

PATH = "proto/trace/schema.json"

#: Raised when a reader of the older schema would misread a trace; new calls do not raise it.
SCHEMA_VERSION = 1


def outputs() -> Iterator[Output]:
    head = {
        "generated": notice("proto/src/harp_spec/spec"),
        "schema_version": SCHEMA_VERSION,
        "handle_kinds": {kind.name: kind.tag for kind in KINDS.values()},
    }
    lines = [f"  {json.dumps(call_schema(call))}" for call in REGISTRY.wire_calls()]
    fields = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    calls = '"calls": [\n' + ",\n".join(lines) + "\n]"
    yield Output(PATH, "{\n" + ",\n".join([*fields, calls]) + "\n}\n")


def call_schema(call: Call) -> dict[str, Any]:
    params = (*call.carries, *call.params)
    schema = {
        "id": call.id,
        "name": call.name,
        "area": call.area,
        "sync": call.sync.value,
        "waits": call.waits,
        "record": call.record,
        "inputs": [argument_schema(item) for item in call.inputs],
        "outputs": [argument_schema(item) for item in call.outputs],
        "creates": [p.name for p in params if isinstance(p.role, Create)],
        "destroys": [p.name for p in params if isinstance(p.role, Use) and p.role.destroys],
        "ranges": [span for p in params for span in ranges(p)],
        "predicts": list(call.predicts),
        "charge": list(call.charge or ()),
    }
    return {key: value for key, value in schema.items() if value not in ([], False)}


def argument_schema(item: Argument) -> dict[str, Any]:
    return {"name": item.name, "type": item.codec.name}


def ranges(param: Param) -> list[dict[str, Any]]:
    """The device memory that a call touches through one pointer."""
    if not isinstance(param.role, Device):
        return []
    touched = (("reads", param.role.reads), ("writes", param.role.writes))
    return [
        {"pointer": param.name, "access": access, "bytes": length}
        for access, length in touched
        if length
    ]

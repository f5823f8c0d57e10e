"""The events of a trace, typed, one after the other: what `harp-trace events` prints.

A trace is read as a stream: nothing here keeps what has been read. In place of a trace, all that
reads events takes a file of such lines too (`harp-replay convert` writes one).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from typing import Any, NamedTuple

from harp_client.errors import HarpError
from harp_replay.json_line import object_of

SUFFIXES = (".jsonl", ".ndjson")
"""Files with these names are lines, not traces."""


class Payload(NamedTuple):
    """Data of a call or reply, and how much of it the trace has."""

    policy: str
    """`lost`, `shape`, `hash` or `full`."""
    bytes: int
    hash: str | None


class Enter(NamedTuple):
    """A driver API call begins. Times are nanoseconds since the trace began."""

    number: int
    time: int
    thread: int
    name: str


class Leave(NamedTuple):
    """A driver API call has ended with `result`, a CUresult."""

    enter: int | None
    time: int
    thread: int
    result: int


class Call(NamedTuple):
    """A call goes to a session's server; with a ticket it will be answered."""

    number: int
    time: int
    session: int
    thread: int
    name: str
    enter: int | None
    ticket: int | None
    kernel: str | None
    """The kernel that it starts, as people write its name."""
    args: Mapping[str, Any]
    payload: Payload | None
    size: int
    """Bytes on the wire, payload and all."""


class Reply(NamedTuple):
    """The answer to a call has come."""

    call: int | None
    time: int
    session: int
    name: str
    status: int
    deferred: int
    """An error of an earlier one-way call, or 0."""
    outs: Mapping[str, Any]
    payload: Payload | None
    size: int


class Push(NamedTuple):
    """The server has said something unasked."""

    time: int
    session: int
    kind: str


class Wait(NamedTuple):
    """A thread of the program waited for the server."""

    call: int | None
    name: str
    """The call of the wire that it waited for."""
    thread: int
    session: int
    began: int
    ended: int
    because: str


class Allocation(NamedTuple):
    """The program gets memory of a device."""

    number: int
    time: int
    session: int
    device: int
    address: int
    bytes: int


class Free(NamedTuple):
    """Memory of a device is the program's no more."""

    allocation: int | None
    time: int


class Loss(NamedTuple):
    """So much is missing here."""

    time: int
    reasons: tuple[str, ...]
    blocks: int
    bytes: int


class Thread(NamedTuple):
    """A thread of the program."""

    thread: int
    tid: int
    name: str


class DeviceTime(NamedTuple):
    """When the device did the work of a call, by the device's own clock (ns)."""

    session: int
    call: int
    began: int
    ended: int


class Snapshot(NamedTuple):
    """Device memory that a trimmed trace begins with."""

    session: int
    device: int
    address: int
    bytes: int


class Told(NamedTuple):
    """What the recorder says in JSON: `define`, `process`, `session`, `annotation` or `end`."""

    kind: str
    fields: Mapping[str, Any]


class Whole(NamedTuple):
    """The trace as a whole: the last event."""

    complete: bool
    cut: bool
    calls: int
    manifest: Mapping[str, Any]


Event = (
    Enter
    | Leave
    | Call
    | Reply
    | Push
    | Wait
    | Allocation
    | Free
    | Loss
    | Thread
    | DeviceTime
    | Snapshot
    | Told
    | Whole
)

Fields = Mapping[str, Any]


def _number(of: Fields, key: str) -> int:
    value = of[key]
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise TypeError(key)
    return value


def _maybe(of: Fields, key: str) -> int | None:
    return None if of.get(key) is None else _number(of, key)


def _text(of: Fields, key: str) -> str:
    value = of[key]
    if type(value) is not str:
        raise TypeError(key)
    return value


def _text_if_said(of: Fields, key: str) -> str:
    """What may not be said, as it is of calls and pushes that the recorder did not know."""
    return _text(of, key) if key in of else ""


def _texts(of: Fields, key: str) -> tuple[str, ...]:
    values = of[key]
    if type(values) is not list or any(type(value) is not str for value in values):
        raise TypeError(key)
    return tuple(values)


def _object(of: Fields, key: str) -> Fields:
    value = of.get(key, {})
    if type(value) is not dict:
        raise TypeError(key)
    return value


def _payload(of: Fields) -> Payload | None:
    if "payload" not in of:
        return None
    payload = _object(of, "payload")
    digest = payload.get("hash")
    name = None if digest is None else _text(payload, "hash")
    return Payload(_text(payload, "policy"), _number(payload, "bytes"), name)


def _size(of: Fields, payload: Payload | None) -> int:
    """As the line says; of one that does not, what is known of it."""
    return _number(of, "size") if "size" in of else payload.bytes if payload else 0


def _call(of: Fields) -> Call:
    payload = _payload(of)
    kernel = next((_text(of, key) for key in ("demangled", "kernel") if key in of), None)
    return Call(
        _number(of, "number"),
        _number(of, "time"),
        _number(of, "session"),
        _number(of, "thread"),
        _text(of, "name"),
        _maybe(of, "enter"),
        _maybe(of, "ticket"),
        kernel,
        _object(of, "args"),
        payload,
        _size(of, payload),
    )


def _reply(of: Fields) -> Reply:
    payload = _payload(of)
    return Reply(
        _maybe(of, "call"),
        _number(of, "time"),
        _number(of, "session"),
        _text_if_said(of, "name"),
        _number(of, "status"),
        _number(of, "deferred") if "deferred" in of else 0,
        _object(of, "outs"),
        payload,
        _size(of, payload),
    )


def _told(of: Fields) -> Told:
    return Told(of["type"], {key: value for key, value in of.items() if key != "type"})


def _numbers(kind: Callable[..., Event], *keys: str) -> Callable[[Fields], Event]:
    return lambda of: kind(*(_number(of, key) for key in keys))


READERS: dict[str, Callable[[Fields], Event]] = {
    "enter": lambda of: Enter(
        _number(of, "number"), _number(of, "time"), _number(of, "thread"), _text(of, "name")
    ),
    "leave": lambda of: Leave(
        _maybe(of, "enter"), _number(of, "time"), _number(of, "thread"), _number(of, "result")
    ),
    "call": _call,
    "reply": _reply,
    "push": lambda of: Push(_number(of, "time"), _number(of, "session"), _text_if_said(of, "kind")),
    "wait": lambda of: Wait(
        _maybe(of, "call"),
        _text_if_said(of, "name"),
        _number(of, "thread"),
        _number(of, "session") if "session" in of else 0,
        _number(of, "began"),
        _number(of, "ended"),
        _text(of, "because"),
    ),
    "allocation": _numbers(Allocation, "number", "time", "session", "device", "address", "bytes"),
    "free": lambda of: Free(_maybe(of, "allocation"), _number(of, "time")),
    "loss": lambda of: Loss(
        _number(of, "time"), _texts(of, "reasons"), _number(of, "blocks"), _number(of, "bytes")
    ),
    "thread": lambda of: Thread(_number(of, "thread"), _number(of, "tid"), _text(of, "name")),
    "device_time": _numbers(DeviceTime, "session", "call", "began", "ended"),
    "snapshot": _numbers(Snapshot, "session", "device", "address", "bytes"),
    "define": _told,
    "process": _told,
    "session": _told,
    "annotation": _told,
    "end": _told,
    "trace": lambda of: Whole(
        bool(of["complete"]), bool(of["cut"]), _number(of, "calls"), _object(of, "manifest")
    ),
}


def event(line: Fields) -> Event | None:
    """The event that a line says; None for a kind that this version does not know.

    Raises KeyError or TypeError for one that lacks what its kind has.
    """
    reader = READERS.get(line["type"])
    return reader(line) if reader is not None else None


def events(trace: str) -> Iterator[Event]:
    """The events of the trace at path `trace`, in their order.

    Of a trace that is cut off the events up to the cut; of a damaged one those before the damage,
    and then HarpError (2). HarpError too for a line that is none.
    """
    with closing(lines(trace)) as source:
        for number, line in enumerate(source, 1):
            try:
                found = event(line)
            except (KeyError, TypeError) as error:
                raise _no_event(trace, number) from error
            if found is not None:
                yield found


def _no_event(trace: str, number: int) -> HarpError:
    return HarpError(
        f"line {number} of the events of {trace} is no event", "convert the trace again", 2
    )


def reasons(define: Mapping[str, Any]) -> dict[str, str]:
    """What a `define` says that the reasons of waits mean."""
    names, texts = define.get("reasons"), define.get("reason_texts")
    if not isinstance(names, list) or not isinstance(texts, list):
        return {}
    return {str(name): str(text) for name, text in zip(names, texts, strict=False)}


def round_trip_ns(session: Mapping[str, Any]) -> int | None:
    """How far away the server of a `session` was, in ns, if that was measured."""
    found = session.get("round_trip_ns")
    return found if type(found) is int and 0 <= found < 1 << 63 else None


def device_names(session: Mapping[str, Any]) -> Iterator[str]:
    """The names of a session's devices, as its server has told them."""
    snapshot = session.get("snapshot")
    devices = snapshot.get("devices", ()) if isinstance(snapshot, Mapping) else ()
    for device in devices if isinstance(devices, list) else ():
        yield str(device.get("name", "?") if isinstance(device, Mapping) else device)


def lines(trace: str) -> Generator[dict[str, Any], None, None]:
    """The events of a trace as objects of JSON. Raises HarpError."""
    if trace.endswith(SUFFIXES) and not os.path.isdir(trace):
        yield from _lines_of_file(trace)
        return
    from harp_replay.native_trace import NativeTrace

    with NativeTrace(["events", os.path.abspath(trace)]) as native_trace:
        yield from native_trace.lines()
        native_trace.end(status_of_failure=2)


def _lines_of_file(path: str) -> Iterator[dict[str, Any]]:
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    found = object_of(line)
                except ValueError as error:
                    if isinstance(error, json.JSONDecodeError) and not line.endswith("\n"):
                        return  # whoever wrote it was killed there
                    raise _no_event(path, number) from error
                yield found
    except (OSError, UnicodeDecodeError) as error:
        raise HarpError(f"cannot read {path}: {error}", "name a trace", 2) from error

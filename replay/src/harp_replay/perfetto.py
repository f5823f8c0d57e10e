"""Marks as a trace of Perfetto: protobuf, with the few of its messages that it takes.

Names and numbers of the fields are those of Perfetto's public `perfetto_trace.proto`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import IO, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from harp_replay.clocks import LAST
from harp_replay.files import utf8
from harp_replay.timeline import Begin, Count, End, Instant, Mark, Named, Track

SLICE_BEGIN, SLICE_END, INSTANT, COUNTER = 1, 2, 3, 4
UNIT_SIZE_BYTES = 3
STATE_CLEARED = 1
SEQUENCE = 1
PROCESS_UUID = 1

TYPES = {
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "double": descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE,
    "enum": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,  # the same on the wire
    "fixed64": descriptor_pb2.FieldDescriptorProto.TYPE_FIXED64,
    "int32": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
    "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    "uint32": descriptor_pb2.FieldDescriptorProto.TYPE_UINT32,
    "uint64": descriptor_pb2.FieldDescriptorProto.TYPE_UINT64,
}

MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Trace": {"packet": (1, "TracePacket*")},
    "TracePacket": {
        "timestamp": (8, "uint64"),
        "trusted_packet_sequence_id": (10, "uint32"),
        "track_event": (11, "TrackEvent"),
        "sequence_flags": (13, "uint32"),
        "track_descriptor": (60, "TrackDescriptor"),
    },
    "TrackEvent": {
        "debug_annotations": (4, "DebugAnnotation*"),
        "type": (9, "enum"),
        "track_uuid": (11, "uint64"),
        "categories": (22, "string*"),
        "name": (23, "string"),
        "counter_value": (30, "int64"),
        "flow_ids": (47, "fixed64*"),
        "terminating_flow_ids": (48, "fixed64*"),
    },
    "DebugAnnotation": {
        "int_value": (4, "int64"),
        "string_value": (6, "string"),
        "name": (10, "string"),
    },
    "TrackDescriptor": {
        "uuid": (1, "uint64"),
        "name": (2, "string"),
        "process": (3, "ProcessDescriptor"),
        "thread": (4, "ThreadDescriptor"),
        "parent_uuid": (5, "uint64"),
        "counter": (8, "CounterDescriptor"),
    },
    "ProcessDescriptor": {"pid": (1, "int32"), "process_name": (6, "string")},
    "ThreadDescriptor": {
        "pid": (1, "int32"),
        "tid": (2, "int64"),
        "thread_name": (5, "string"),
    },
    "CounterDescriptor": {"unit": (3, "enum")},
}


def _classes() -> dict[str, Any]:
    """The messages' classes, in a pool of their own."""
    file = descriptor_pb2.FileDescriptorProto(name="marks.proto", package="marks", syntax="proto2")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            label = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
            if kind.endswith("*"):
                label = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
            kind = kind.rstrip("*")
            field = message.field.add(name=field_name, number=number, label=label)
            if kind in TYPES:
                field.type = TYPES[kind]
            else:
                field.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
                field.type_name = f".marks.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"marks.{name}"))
        for name in MESSAGES
    }


class Writer:
    """Writes one file: a trace is its packets, one after the other."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._trace = _classes()["Trace"]
        self._uuids: dict[tuple[str, int, int], int] = {}
        self._pid = 1
        self._has_begun = False

    def write(self, marks: Iterable[Mark]) -> int:
        """Writes all marks; how many packets they were."""
        count = 0
        for mark in marks:
            self._mark(mark)
            count += 1
        return count

    def _packet(self, **fields: Any) -> None:
        fields["trusted_packet_sequence_id"] = SEQUENCE
        if not self._has_begun:
            fields["sequence_flags"] = STATE_CLEARED
            self._has_begun = True
        self._file.write(self._trace(packet=[fields]).SerializeToString())

    def _mark(self, mark: Mark) -> None:
        if isinstance(mark, Named):
            if mark.track.kind == "process":
                self._pid = min(max(1, mark.pid), (1 << 31) - 1)
            self._describe(mark.track, mark.tid)
            return
        event: dict[str, Any] = {"track_uuid": self._uuid(mark.track)}
        match mark:
            case Begin():
                event |= self._words(mark.name, mark.category, mark.args) | {"type": SLICE_BEGIN}
                if mark.arrow is not None:
                    event["terminating_flow_ids"] = [mark.arrow]
            case End():
                event |= self._words("", "", mark.args) | {"type": SLICE_END}
            case Instant():
                event |= self._words(mark.name, mark.category, mark.args) | {"type": INSTANT}
                if mark.arrow is not None:
                    event["flow_ids"] = [mark.arrow]
            case Count():
                event |= {"type": COUNTER, "counter_value": min(mark.value, LAST)}
        self._packet(timestamp=mark.time, track_event=event)

    @staticmethod
    def _words(name: str, category: str, args: Mapping[str, Any]) -> dict[str, Any]:
        words: dict[str, Any] = {"name": utf8(name), "categories": [category]} if name else {}
        words["debug_annotations"] = [
            {"name": key, "int_value": min(value, LAST)}
            if isinstance(value, int)
            else {"name": key, "string_value": utf8(str(value))}
            for key, value in args.items()
        ]
        return words

    def _uuid(self, track: Track) -> int:
        if track.kind == "process":
            return PROCESS_UUID
        if track.key not in self._uuids:
            self._describe(track, track.number + 1)
        return self._uuids[track.key]

    def _describe(self, track: Track, tid: int) -> None:
        name = utf8(track.name)
        if track.kind == "process":
            process = {"pid": self._pid, "process_name": name}
            self._packet(track_descriptor={"uuid": PROCESS_UUID, "process": process})
            return
        uuid = self._uuids.setdefault(track.key, PROCESS_UUID + 1 + len(self._uuids))
        described: dict[str, Any] = {"uuid": uuid, "parent_uuid": PROCESS_UUID}
        if track.kind == "thread":
            described["thread"] = {"pid": self._pid, "tid": min(tid, LAST), "thread_name": name}
        else:
            described["name"] = name
        if track.kind == "counter":
            described["counter"] = {"unit": UNIT_SIZE_BYTES}
        self._packet(track_descriptor=described)

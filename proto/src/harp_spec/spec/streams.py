"""Streams, events and host functions."""

from harp_spec.codecs import STREAM as STREAM_ID
from harp_spec.codecs import U64, handle
from harp_spec.spec.vocabulary import (
    DATA,
    ONE_WAY,
    OUT,
    QUERY,
    REPLY,
    STREAM,
    SYNCHRONISE,
    VALUE,
    Area,
    Create,
    Custom,
    Use,
    Value,
)

STREAMS = Area("streams", 0x0600)
EVENTS = Area("events", 0x0700)

KEEPS_STREAMS = Custom("keeps flags, priority and context with the handle")
KEEPS_EVENTS = Custom("keeps the event's context with the handle")
NOTES_RECORD = Custom("notes the record's place in its stream, once the client watches events")
CHECKS_CONTEXTS = Custom("event and stream must be of one context")
STREAM_FLAGS = Value(allowed="CU_STREAM_NON_BLOCKING")
CREATE_ERRORS = ("INVALID_VALUE", "INVALID_CONTEXT")
ON_STREAM_ERRORS = ("INVALID_HANDLE", "INVALID_CONTEXT")

STREAMS.call(
    "cuStreamCreate",
    0x0601,
    ONE_WAY,
    {"phStream": Create("Stream"), "Flags": STREAM_FLAGS},
    client=KEEPS_STREAMS,
    predicts=CREATE_ERRORS,
)
STREAMS.call(
    "cuStreamCreateWithPriority",
    0x0602,
    ONE_WAY,
    {"phStream": Create("Stream"), "flags": STREAM_FLAGS, "priority": VALUE},
    client=KEEPS_STREAMS,
    predicts=CREATE_ERRORS,
)
STREAMS.call(
    "cuStreamDestroy_v2",
    0x0603,
    ONE_WAY,
    {"hStream": Use("Stream", destroys=True)},
    needs_context=False,
    predicts=("INVALID_HANDLE",),
)
STREAMS.call(
    "cuStreamSynchronize",
    0x0604,
    REPLY,
    {"hStream": STREAM},
    server=Custom("waits on a waiter thread"),
    needs_context=False,
    waits=True,
    record="skip",
    because=SYNCHRONISE,
)
STREAMS.call(
    "cuStreamQuery",
    0x0605,
    REPLY,
    {"hStream": STREAM},
    needs_context=False,
    record="skip",
    because=QUERY,
)
STREAMS.call(
    "cuStreamWaitEvent",
    0x0606,
    ONE_WAY,
    {"hStream": STREAM, "hEvent": Use("Event"), "Flags": Value(allowed="CU_EVENT_WAIT_EXTERNAL")},
    client=Custom("waits for an event of another server's by itself"),
    needs_context=False,
    predicts=("INVALID_VALUE", *ON_STREAM_ERRORS),
)
STREAMS.local(
    "client state",
    "cuStreamGetCtx",
    "cuStreamGetCtx_v2",
    "cuStreamGetDevice",
    "cuStreamGetFlags",
    "cuStreamGetId",
    "cuStreamGetPriority",
)
STREAMS.local(
    "client state: which streams capture",
    "cuStreamGetCaptureInfo",
    "cuStreamGetCaptureInfo_v2",
    "cuStreamGetCaptureInfo_v3",
    "cuStreamIsCapturing",
    "cuThreadExchangeStreamCaptureMode",
)
STREAMS.wire(
    "cuLaunchHostFunc",
    0x0607,
    ONE_WAY,
    {"stream": STREAM_ID, "callback": U64},
    client=Custom("the function is the program's: it runs here and harp_callback_done says so"),
    server=Custom("blocks the stream until the client is done"),
    predicts=("INVALID_VALUE", *ON_STREAM_ERRORS),
)
STREAMS.via("cuLaunchHostFunc_v2", ONE_WAY, "cuLaunchHostFunc")
STREAMS.via("cuStreamAddCallback", ONE_WAY, "cuLaunchHostFunc")

EVENTS.call(
    "cuEventCreate",
    0x0701,
    ONE_WAY,
    {
        "phEvent": Create("Event"),
        "Flags": Value(
            allowed="CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS"
        ),
    },
    client=KEEPS_EVENTS,
    predicts=CREATE_ERRORS,
)
EVENTS.call(
    "cuEventDestroy_v2",
    0x0702,
    ONE_WAY,
    {"hEvent": Use("Event", destroys=True)},
    client=KEEPS_EVENTS,
    server=Custom("a watch of the event ends first"),
    needs_context=False,
    predicts=("INVALID_HANDLE",),
)
EVENTS.call(
    "cuEventRecord",
    0x0703,
    ONE_WAY,
    {"hEvent": Use("Event"), "hStream": STREAM},
    client=CHECKS_CONTEXTS,
    server=NOTES_RECORD,
    needs_context=False,
    predicts=ON_STREAM_ERRORS,
)
EVENTS.wire(
    "harp_event_watch",
    0x0708,
    ONE_WAY,
    {"event": handle("Event"), "number": U64},
    client=Custom("after a record, once the program has asked how far an event is"),
    server=Custom("a push says when the event has completed"),
)
EVENTS.call(
    "cuEventRecordWithFlags",
    0x0704,
    ONE_WAY,
    {"hEvent": Use("Event"), "hStream": STREAM, "flags": Value(allowed="CU_EVENT_RECORD_EXTERNAL")},
    client=CHECKS_CONTEXTS,
    server=NOTES_RECORD,
    needs_context=False,
    predicts=("INVALID_VALUE", *ON_STREAM_ERRORS),
)
EVENTS.call(
    "cuEventQuery",
    0x0705,
    REPLY,
    {"hEvent": Use("Event")},
    client=Custom("what a push has said of the record answers it"),
    needs_context=False,
    record="skip",
    because=QUERY,
)
EVENTS.call(
    "cuEventSynchronize",
    0x0706,
    REPLY,
    {"hEvent": Use("Event")},
    server=Custom("waits on a waiter thread"),
    needs_context=False,
    waits=True,
    record="skip",
    because=SYNCHRONISE,
)
EVENTS.call(
    "cuEventElapsedTime_v2",
    0x0707,
    REPLY,
    {"pMilliseconds": OUT, "hStart": Use("Event"), "hEnd": Use("Event")},
    needs_context=False,
    record="skip",
    because=DATA,
)

"""Calls of the session itself. They have no C counterpart."""

from harp_spec.codecs import BYTES, PAYLOAD, U32, U64, handle_or_none
from harp_spec.spec.vocabulary import FIRST_USE, ONE_WAY, REPLY, Area, Custom

SESSION = Area("session", 0x0000)

SESSION.wire(
    "harp_set_current",
    0x0001,
    ONE_WAY,
    {"context": handle_or_none("Context")},
    client=Custom("sent before a thread's next call when its current context has changed"),
    server=Custom("the executor keeps it per client thread"),
)
SESSION.wire(
    "harp_blob_append",
    0x0002,
    ONE_WAY,
    {"blob": U64, "piece": PAYLOAD},
    client=Custom("an image travels in pieces, so that other calls are not held up behind it"),
    server=Custom("blobs are the session's, within a cap"),
    record="blob",
)
SESSION.wire(
    "harp_jit_logs",
    0x0003,
    REPLY,
    {},
    {"info": BYTES, "error": BYTES},
    client=Custom("asked after a load or link whose options name log buffers"),
    server=Custom("kept from the client thread's last load or link"),
    record="skip",
    because=FIRST_USE,
)
SESSION.wire(
    "harp_thread_ended",
    0x0004,
    ONE_WAY,
    {"thread": U32},
    client=Custom("a client thread that made calls has ended"),
    server=Custom("its default stream and its state are given up"),
)
SESSION.wire(
    "harp_callback_done",
    0x0005,
    ONE_WAY,
    {"callback": U64},
    client=Custom("the program's host function has returned"),
    server=Custom("lets the stream go on"),
)

"""Calls of the session itself. They have no C counterpart."""

from harp_spec.codecs import BYTES, PAYLOAD, U32, U64, array, handle_or_none, sequence
from harp_spec.spec.vocabulary import CACHED, FIRST_USE, ONE_WAY, REPLY, Area, Custom

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

#: A half of a piece's name: what the server says of it, and what only who has the content knows.
HALF_NAME = array(U64, 2)

SESSION.wire(
    "harp_blob_append_cached",
    0x0010,
    ONE_WAY,
    {"blob": U64, "piece": U32, "check": HALF_NAME, "proof": HALF_NAME},
    client=Custom("in place of harp_blob_append where the server may have the piece"),
    server=Custom("reads it from the tenant's cache; without it the load that follows says so"),
    record="blob",
)
SESSION.wire(
    "harp_cache_list",
    0x0011,
    REPLY,
    {"known": U32},
    {"fingerprints": BYTES},
    client=Custom("asked when something is to be sent that was sent before in this session"),
    server=Custom("the pieces that were kept since"),
    record="skip",
    because=CACHED,
)
SESSION.wire(
    "harp_cache_fetch",
    0x0012,
    REPLY,
    {"pieces": sequence(U32)},
    {"checks": BYTES},
    client=Custom("asked before a payload whose fingerprints the server knows"),
    server=Custom("reads them from the tenant's cache and holds them until it is asked again"),
    record="skip",
    because=CACHED,
)

"""Device memory, page-locked host memory, pointer queries and pools.

The client keeps a map of the device ranges that the session owns: it classifies pointers and checks
the bounds of copies and memsets before they leave.
"""

from harp_spec.codecs import BYTES, I32, PAYLOAD, U32, U64, handle, sequence
from harp_spec.spec.vocabulary import (
    ALLOCATION,
    CHOSEN,
    FREE,
    ONE_WAY,
    OUT,
    QUERY,
    REPLY,
    SETTING,
    SHARED,
    STREAM,
    VALUE,
    Area,
    Create,
    Custom,
    Device,
    Out,
    Use,
)

MEMORY = Area("memory", 0x0400)

KEEPS_RANGES = Custom("keeps the map of device ranges")

MEMORY.call(
    "cuMemAlloc_v2",
    0x0401,
    REPLY,
    {"dptr": OUT, "bytesize": VALUE},
    client=KEEPS_RANGES,
    notes="small ones are cut from memory that the server has given ahead",
    charge=("memory", "bytesize"),
    because=ALLOCATION,
)
MEMORY.call(
    "cuMemAllocPitch_v2",
    0x0402,
    REPLY,
    {
        "dptr": OUT,
        "pPitch": OUT,
        "WidthInBytes": VALUE,
        "Height": VALUE,
        "ElementSizeBytes": VALUE,
    },
    client=KEEPS_RANGES,
    charge=("memory", "pPitch * Height"),
    because=ALLOCATION,
)
MEMORY.call(
    "cuMemFree_v2",
    0x0403,
    REPLY,
    {"dptr": Device()},
    client=KEEPS_RANGES,
    server=Custom("the driver waits for the device"),
    waits=True,
    needs_context=False,
    because=FREE,
)
MEMORY.call(
    "cuMemGetInfo_v2",
    0x0404,
    REPLY,
    {"free": Out(optional=True), "total": Out(optional=True)},
    client=Custom("what it may still give out by itself is free too"),
    record="skip",
    because=QUERY,
)

#: Twins (crates/wire/src/twin.rs): memory of the program that kernels use has a twin at the same
#: address in the worker.
TWIN = Custom("brings the program's memory and its twin in the worker together")
MEMORY.wire(
    "harp_twin_create",
    0x0420,
    REPLY,
    {"base": U64, "bytes": U64},
    client=TWIN,
    server=TWIN,
    because=SHARED,
)
MEMORY.wire("harp_twin_destroy", 0x0421, ONE_WAY, {"base": U64}, client=TWIN, server=TWIN)
MEMORY.wire(
    "harp_twin_write",
    0x0422,
    ONE_WAY,
    {"lines": PAYLOAD},
    client=Custom("before work is queued: what the program has changed"),
    server=TWIN,
)
MEMORY.wire(
    "harp_twin_read",
    0x0423,
    REPLY,
    {"cursor": U64},
    {"next": U64, "lines": BYTES},
    client=Custom("after work was waited for: what the device has changed"),
    server=TWIN,
    record="skip",
    because=SHARED,
)
MEMORY.via("cuMemAllocManaged", REPLY, "harp_twin_create")
MEMORY.via("cuMemHostGetDevicePointer_v2", REPLY, "harp_twin_create")
MEMORY.local(
    "the twins are kept alike whichever stream uses them",
    "cuStreamAttachMemAsync",
    "cuMemAdvise",
    "cuMemPrefetchAsync",
)

MEMORY.local("client's map of ranges", "cuMemGetAddressRange_v2")
MEMORY.local(
    "client's map of ranges",
    "cuPointerGetAttribute",
    "cuPointerGetAttributes",
    "cuPointerSetAttribute",
)
MEMORY.local(
    "client memory",
    "cuMemAllocHost_v2",
    "cuMemFreeHost",
    "cuMemHostAlloc",
    "cuMemHostGetFlags",
    "cuMemHostRegister_v2",
    "cuMemHostUnregister",
)

MEMORY.call(
    "cuMemAllocAsync",
    0x0410,
    REPLY,
    {"dptr": OUT, "bytesize": VALUE, "hStream": STREAM},
    client=KEEPS_RANGES,
    needs_context=False,
    charge=("memory", "bytesize"),
    because=ALLOCATION,
)
MEMORY.call(
    "cuMemAllocFromPoolAsync",
    0x0411,
    REPLY,
    {"dptr": OUT, "bytesize": VALUE, "pool": Use("Pool"), "hStream": STREAM},
    client=KEEPS_RANGES,
    needs_context=False,
    charge=("memory", "bytesize"),
    because=ALLOCATION,
)
MEMORY.call(
    "cuMemFreeAsync",
    0x0412,
    ONE_WAY,
    {"dptr": Device(), "hStream": STREAM},
    client=KEEPS_RANGES,
    needs_context=False,
    predicts=("INVALID_VALUE", "INVALID_HANDLE", "INVALID_CONTEXT"),
)

POOL_VALUE = Custom("the value's size depends on the attribute")
POOL_STRUCT = Custom("flattens a structure with pointers")
MEMORY.wire(
    "cuMemPoolCreate",
    0x0413,
    REPLY,
    {
        "pool": handle("Pool"),
        "alloc_type": U32,
        "handle_types": U32,
        "location_type": U32,
        "location": I32,
        "max_bytes": U64,
        "usage": U32,
    },
    client=POOL_STRUCT,
    server=POOL_STRUCT,
    because=SETTING,
)
MEMORY.call(
    "cuMemPoolDestroy",
    0x0414,
    ONE_WAY,
    {"pool": Use("Pool", destroys=True)},
    needs_context=False,
    predicts=("INVALID_HANDLE",),
)
MEMORY.call(
    "cuMemPoolTrimTo",
    0x0415,
    REPLY,
    {"pool": Use("Pool"), "minBytesToKeep": VALUE},
    needs_context=False,
    because=SETTING,
)
MEMORY.wire(
    "cuMemPoolSetAttribute",
    0x0416,
    REPLY,
    {"pool": handle("Pool"), "attribute": U32, "value": U64},
    client=POOL_VALUE,
    server=POOL_VALUE,
    because=SETTING,
)
MEMORY.wire(
    "cuMemPoolGetAttribute",
    0x0417,
    REPLY,
    {"pool": handle("Pool"), "attribute": U32},
    {"value": U64},
    client=POOL_VALUE,
    server=POOL_VALUE,
    record="skip",
    because=QUERY,
)
MEMORY.wire(
    "cuMemPoolSetAccess",
    0x0418,
    REPLY,
    {
        "pool": handle("Pool"),
        "location_types": sequence(U32),
        "locations": sequence(I32),
        "flags": sequence(U32),
    },
    client=POOL_STRUCT,
    server=POOL_STRUCT,
    because=SETTING,
)
MEMORY.wire(
    "cuMemPoolGetAccess",
    0x0419,
    REPLY,
    {"pool": handle("Pool"), "location_type": U32, "location": I32},
    {"flags": U32},
    client=POOL_STRUCT,
    server=POOL_STRUCT,
    record="skip",
    because=QUERY,
)
ONE_ALIAS = Custom("gives one handle for the same pool")
MEMORY.call(
    "cuDeviceGetDefaultMemPool",
    0x041A,
    REPLY,
    {"pool_out": Create("Pool"), "dev": VALUE},
    client=ONE_ALIAS,
    needs_context=False,
    because=CHOSEN,
)
MEMORY.local("the pool last set, or the default one", "cuDeviceGetMemPool")
MEMORY.call(
    "cuDeviceSetMemPool",
    0x041B,
    REPLY,
    {"dev": VALUE, "pool": Use("Pool")},
    client=Custom("remembers it for cuDeviceGetMemPool"),
    needs_context=False,
    because=SETTING,
)

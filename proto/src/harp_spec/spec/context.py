"""Contexts and the per-thread stack of current ones.

Which context is current is client state; the server hears of it by ``harp_set_current``. The client
knows each primary context by one handle for the life of the process.
"""

from harp_spec.spec.vocabulary import (
    LIFE,
    ONE_WAY,
    OUT,
    QUERY,
    REPLY,
    SETTING,
    SYNCHRONISE,
    VALUE,
    Area,
    Create,
    Custom,
    Out,
    Use,
    Value,
)

CONTEXT = Area("context", 0x0200)

KEEPS_CONTEXTS = Custom("keeps the context's flags, references and thread stacks")
WAITS = Custom("waits on a waiter thread, not on the executor")

CONTEXT.local(
    "client state",
    "cuCtxGetApiVersion",
    "cuCtxGetCurrent",
    "cuCtxGetDevice",
    "cuCtxGetDevice_v2",
    "cuCtxGetFlags",
    "cuCtxGetId",
    "cuCtxPopCurrent_v2",
    "cuCtxPushCurrent_v2",
    "cuCtxSetCurrent",
    "cuCtxSetFlags",
    "cuDevicePrimaryCtxGetState",
    "cuDevicePrimaryCtxSetFlags_v2",
)

CONTEXT.call(
    "cuDevicePrimaryCtxRetain",
    0x0201,
    REPLY,
    {"pctx": Create("Context"), "dev": VALUE},
    client=KEEPS_CONTEXTS,
    server=Custom("hands over the context that the worker has made ahead"),
    needs_context=False,
    notes="sent one way where the server has said that the context is there",
    because=LIFE,
)
CONTEXT.call(
    "cuDevicePrimaryCtxRelease_v2",
    0x0202,
    REPLY,
    {"dev": VALUE},
    carries={"context": Use("Context", destroys=True)},
    client=KEEPS_CONTEXTS,
    needs_context=False,
    because=LIFE,
)
CONTEXT.call(
    "cuDevicePrimaryCtxReset_v2",
    0x0203,
    REPLY,
    {"dev": VALUE},
    carries={"context": Use("Context")},
    client=KEEPS_CONTEXTS,
    server=Custom("everything in the context ends while its handle stays"),
    needs_context=False,
    because=LIFE,
)
CONTEXT.call(
    "cuCtxCreate_v2",
    0x0204,
    REPLY,
    {"pctx": Create("Context"), "flags": VALUE, "dev": VALUE},
    client=KEEPS_CONTEXTS,
    needs_context=False,
    because=LIFE,
)
CONTEXT.via("cuCtxCreate_v3", REPLY, "cuCtxCreate_v2")
CONTEXT.via("cuCtxCreate_v4", REPLY, "cuCtxCreate_v2")
CONTEXT.call(
    "cuCtxDestroy_v2",
    0x0205,
    REPLY,
    {"ctx": Use("Context", destroys=True)},
    client=KEEPS_CONTEXTS,
    needs_context=False,
    because=LIFE,
)
CONTEXT.call(
    "cuCtxSynchronize",
    0x0206,
    REPLY,
    {},
    client=KEEPS_CONTEXTS,
    server=WAITS,
    waits=True,
    record="skip",
    because=SYNCHRONISE,
)
CONTEXT.via(
    "cuCtxSynchronize_v2",
    REPLY,
    "cuCtxSynchronize",
    reason="as cuCtxSynchronize with the context current",
)
CONTEXT.call(
    "cuCtxGetLimit", 0x0207, REPLY, {"pvalue": OUT, "limit": VALUE}, record="skip", because=QUERY
)
CONTEXT.call("cuCtxSetLimit", 0x0208, REPLY, {"limit": VALUE, "value": VALUE}, because=SETTING)
CONTEXT.call("cuCtxGetCacheConfig", 0x0209, REPLY, {"pconfig": OUT}, record="skip", because=QUERY)
CONTEXT.call(
    "cuCtxSetCacheConfig",
    0x020A,
    ONE_WAY,
    {"config": Value(allowed="CU_FUNC_CACHE_PREFER_EQUAL")},
    predicts=("INVALID_CONTEXT", "INVALID_VALUE"),
)
CONTEXT.call(
    "cuCtxGetStreamPriorityRange",
    0x020B,
    REPLY,
    {"leastPriority": Out(optional=True), "greatestPriority": Out(optional=True)},
    record="skip",
    because=QUERY,
)
CONTEXT.call("cuCtxResetPersistingL2Cache", 0x020C, REPLY, {}, because=SETTING)
REFUSES_SERVERS = Custom("devices of two servers do not reach each other")
CONTEXT.call(
    "cuCtxEnablePeerAccess",
    0x020D,
    REPLY,
    {"peerContext": Use("Context"), "Flags": VALUE},
    client=REFUSES_SERVERS,
    because=SETTING,
)
CONTEXT.call(
    "cuCtxDisablePeerAccess",
    0x020E,
    REPLY,
    {"peerContext": Use("Context")},
    client=REFUSES_SERVERS,
    because=SETTING,
)
CONTEXT.call(
    "cuCtxGetSharedMemConfig", 0x020F, REPLY, {"pConfig": OUT}, record="skip", because=QUERY
)
CONTEXT.call(
    "cuCtxSetSharedMemConfig",
    0x0210,
    ONE_WAY,
    {
        "config": Value(
            allowed="CU_SHARED_MEM_CONFIG_FOUR_BYTE_BANK_SIZE"
            " | CU_SHARED_MEM_CONFIG_EIGHT_BYTE_BANK_SIZE"
        )
    },
    predicts=("INVALID_CONTEXT", "INVALID_VALUE"),
)

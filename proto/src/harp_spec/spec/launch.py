"""Launches, occupancy and the profiler's switch."""

from harp_spec.codecs import BYTES, I32, STREAM, U8, U32, U64, array, handle
from harp_spec.spec.vocabulary import (
    FIRST_USE,
    ONE_WAY,
    OUT,
    QUERY,
    REPLY,
    VALUE,
    Area,
    Custom,
    Launchable,
)

LAUNCH = Area("launch", 0x0800)

FUNCTION = handle("Function", "Kernel")
LAYS_OUT_PARAMETERS = Custom("lays the parameters out from an array of pointers, checks limits")
#: `params` is the parameter buffer: every parameter at its offset.
GRID = {
    "function": FUNCTION,
    "grid": array(U32, 3),
    "block": array(U32, 3),
    "shared_bytes": U32,
    "stream": STREAM,
}
LAUNCH_ERRORS = (
    "INVALID_VALUE",
    "INVALID_CONTEXT",
    "INVALID_HANDLE",
    "LAUNCH_OUT_OF_RESOURCES",
    "COOPERATIVE_LAUNCH_TOO_LARGE",
)

LAUNCH.wire(
    "cuLaunchKernel",
    0x0801,
    ONE_WAY,
    {**GRID, "cooperative": U8, "params": BYTES},
    client=LAYS_OUT_PARAMETERS,
    server=Custom("passes the parameter buffer in `extra`"),
    predicts=LAUNCH_ERRORS,
    notes="the first launch of each function is sent as a reply: loading it may fail",
    because=FIRST_USE,
)
LAUNCH.via("cuLaunchCooperativeKernel", ONE_WAY, "cuLaunchKernel")
LAUNCH.wire(
    "cuLaunchKernelEx",
    0x0802,
    ONE_WAY,
    {**GRID, "attributes": BYTES, "params": BYTES},
    client=LAYS_OUT_PARAMETERS,
    server=Custom("rebuilds the launch configuration"),
    predicts=LAUNCH_ERRORS,
    notes="`attributes` are whole CUlaunchAttribute records without handles or pointers",
    because=FIRST_USE,
)

KEEPS_OCCUPANCY = Custom(
    "asks once: the answer follows from the function, its device and its attributes"
)
LAUNCH.call(
    "cuOccupancyMaxActiveBlocksPerMultiprocessor",
    0x0810,
    REPLY,
    {"numBlocks": OUT, "func": Launchable(), "blockSize": VALUE, "dynamicSMemSize": VALUE},
    client=KEEPS_OCCUPANCY,
    record="skip",
    because=QUERY,
)
LAUNCH.call(
    "cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags",
    0x0811,
    REPLY,
    {
        "numBlocks": OUT,
        "func": Launchable(),
        "blockSize": VALUE,
        "dynamicSMemSize": VALUE,
        "flags": VALUE,
    },
    client=KEEPS_OCCUPANCY,
    record="skip",
    because=QUERY,
)
LAUNCH.call(
    "cuOccupancyAvailableDynamicSMemPerBlock",
    0x0812,
    REPLY,
    {"dynamicSmemSize": OUT, "func": Launchable(), "numBlocks": VALUE, "blockSize": VALUE},
    record="skip",
    because=QUERY,
)
for search in ("cuOccupancyMaxPotentialBlockSize", "cuOccupancyMaxPotentialBlockSizeWithFlags"):
    LAUNCH.via(
        search,
        REPLY,
        "cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags",
        reason="searches here: it calls back into the program for each block size",
    )
CLUSTERS = Custom("reads a launch configuration and its attributes")
CLUSTER_QUERY = {
    "function": FUNCTION,
    "grid": array(U32, 3),
    "block": array(U32, 3),
    "shared_bytes": U64,
    "cluster": array(U32, 3),
}
LAUNCH.wire(
    "cuOccupancyMaxActiveClusters",
    0x0813,
    REPLY,
    CLUSTER_QUERY,
    {"clusters": I32},
    client=CLUSTERS,
    server=Custom("rebuilds the launch configuration"),
    record="skip",
    because=QUERY,
)
LAUNCH.wire(
    "cuOccupancyMaxPotentialClusterSize",
    0x0814,
    REPLY,
    CLUSTER_QUERY,
    {"cluster_size": I32},
    client=CLUSTERS,
    server=Custom("rebuilds the launch configuration"),
    record="skip",
    because=QUERY,
)

LAUNCH.call("cuProfilerStart", 0x0820, ONE_WAY, {}, predicts=("INVALID_CONTEXT",))
LAUNCH.call("cuProfilerStop", 0x0821, ONE_WAY, {}, predicts=("INVALID_CONTEXT",))

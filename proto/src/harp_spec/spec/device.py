"""Initialisation, devices, and what a library loader asks for."""

from harp_spec.spec.vocabulary import OUT, REPLY, VALUE, Area

DEVICE = Area("device", 0x0100)

DEVICE.local(
    "client state",
    "cuInit",
    "cuDriverGetVersion",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuGetExportTable",
    "cuGetProcAddress",
    "cuGetProcAddress_v2",
    "cuModuleGetLoadingMode",
)
DEVICE.local(
    "session snapshot",
    "cuDeviceComputeCapability",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetByPCIBusId",
    "cuDeviceGetCount",
    "cuDeviceGetExecAffinitySupport",
    "cuDeviceGetName",
    "cuDeviceGetPCIBusId",
    "cuDeviceGetProperties",
    "cuDeviceGetUuid_v2",
    "cuDeviceTotalMem_v2",
)

DEVICE.call(
    "cuDeviceCanAccessPeer",
    0x0101,
    REPLY,
    {"canAccessPeer": OUT, "dev": VALUE, "peerDev": VALUE},
    needs_context=False,
    record="skip",
)
DEVICE.call(
    "cuDeviceGetP2PAttribute",
    0x0102,
    REPLY,
    {"value": OUT, "attrib": VALUE, "srcDevice": VALUE, "dstDevice": VALUE},
    needs_context=False,
    record="skip",
)

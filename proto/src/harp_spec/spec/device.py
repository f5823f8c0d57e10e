"""Initialisation, devices, and what a library loader asks for."""

from harp_spec.spec.vocabulary import Area

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
    "cuDeviceGetLuid",
    "cuDeviceGetName",
    "cuDeviceGetPCIBusId",
    "cuDeviceGetProperties",
    "cuDeviceGetUuid_v2",
    "cuDeviceTotalMem_v2",
)

DEVICE.local(
    "devices of a session reach each other by copies only",
    "cuDeviceCanAccessPeer",
    "cuDeviceGetP2PAttribute",
)

"""Reads every area of the spec into the checked model."""

from harp_spec.model import REGISTRY
from harp_spec.spec import code, context, copies, device, launch, memory, session, streams

AREAS = (
    session.SESSION,
    device.DEVICE,
    context.CONTEXT,
    code.CODE,
    memory.MEMORY,
    copies.COPIES,
    streams.STREAMS,
    streams.EVENTS,
    launch.LAUNCH,
)

#: Driver functions that the server's hand-written session code uses beside those of the calls.
SERVER_SESSION_USES = (
    "cuInit",
    "cuDriverGetVersion",
    "cuDeviceGet",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDeviceGetPCIBusId",
    "cuDeviceGetUuid_v2",
    "cuDeviceTotalMem_v2",
    "cuCtxGetCurrent",
    "cuCtxGetDevice",
    "cuCtxPopCurrent_v2",
    "cuCtxPushCurrent_v2",
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventQuery",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuGetErrorName",
    "cuMemAllocHost_v2",
    "cuMemFreeHost",
    "cuMemGetAddressRange_v2",
    "cuMemHostRegister_v2",
    "cuMemHostUnregister",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
    "cuThreadExchangeStreamCaptureMode",
)

REGISTRY.check()

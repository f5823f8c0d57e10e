"""Initialisation, devices and contexts."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_ulonglong, c_void_p

from .driver import PTX, allocate, begin, cu, function, launch, load, section, tell, value

STACK, PRINTF, HEAP = range(3)
"""Limits of a context."""


@section
def before_init() -> None:
    x = c_int()
    p = c_void_p()
    tell("cuDeviceGetCount", cu.cuDeviceGetCount(byref(x)))
    tell("cuDeviceGet", cu.cuDeviceGet(byref(x), 0))
    tell("cuCtxGetCurrent", cu.cuCtxGetCurrent(byref(p)))
    tell("cuMemAlloc", cu.cuMemAlloc_v2(byref(c_ulonglong()), c_size_t(4)))
    tell("cuMemFree", cu.cuMemFree_v2(c_ulonglong(0)))
    tell("cuStreamSynchronize", cu.cuStreamSynchronize(None))
    tell("cuCtxSynchronize", cu.cuCtxSynchronize())
    tell("cuEventCreate", cu.cuEventCreate(byref(p), 0))
    tell("cuModuleLoadData", cu.cuModuleLoadData(byref(p), PTX))
    tell("cuDriverGetVersion", cu.cuDriverGetVersion(byref(x)))
    tell("cuGetErrorName 0", cu.cuGetErrorName(0, byref(c_char_p())))
    tell("cuGetErrorName 12345", cu.cuGetErrorName(12345, byref(c_char_p())))
    tell("cuInit 1", cu.cuInit(1))
    tell("cuDevicePrimaryCtxRetain", cu.cuDevicePrimaryCtxRetain(byref(p), 0))
    tell("cuPointerGetAttribute", cu.cuPointerGetAttribute(byref(x), 2, c_ulonglong(64)))
    tell("cuGetExportTable nonsense", cu.cuGetExportTable(byref(p), b"0123456789abcdef"))
    tell("cuInit 0", cu.cuInit(0))
    tell("cuInit 0 again", cu.cuInit(0))


@section
def devices() -> None:
    cu.cuInit(0)
    x = c_int()
    text = ctypes.create_string_buffer(4)
    tell("cuDeviceGet -1", cu.cuDeviceGet(byref(x), -1))
    tell("cuDeviceGet 99", cu.cuDeviceGet(byref(x), 99))
    tell("cuDeviceGet null", cu.cuDeviceGet(None, 0))
    tell("cuDeviceGetCount null", cu.cuDeviceGetCount(None))
    tell("attribute of device 99", cu.cuDeviceGetAttribute(byref(x), 1, 99))
    tell("attribute 0", cu.cuDeviceGetAttribute(byref(x), 0, 0))
    tell("attribute 9999", cu.cuDeviceGetAttribute(byref(x), 9999, 0))
    tell("attribute null", cu.cuDeviceGetAttribute(None, 1, 0))
    tell("name in 4 bytes", cu.cuDeviceGetName(text, 4, 0), repr(text.raw))
    tell("bus id in 4 bytes", cu.cuDeviceGetPCIBusId(text, 4, 0), repr(text.raw))
    tell("by bus id absent", cu.cuDeviceGetByPCIBusId(byref(x), b"00ff:1f:1f.0"))
    tell("can access itself", cu.cuDeviceCanAccessPeer(byref(x), 0, 0), value(x.value))
    tell("primary of device 99", cu.cuDevicePrimaryCtxRetain(byref(c_void_p()), 99))
    _tell_primary_state()
    tell("primary release unretained", cu.cuDevicePrimaryCtxRelease_v2(0))
    tell("primary reset unretained", cu.cuDevicePrimaryCtxReset_v2(0))
    tell("primary flags 0xffff", cu.cuDevicePrimaryCtxSetFlags_v2(0, 0xFFFF))
    tell("primary flags 4", cu.cuDevicePrimaryCtxSetFlags_v2(0, 4))
    _tell_primary_state()
    tell("context create flags 0xffff", cu.cuCtxCreate_v2(byref(c_void_p()), 0xFFFF, 0))
    tell("context create device 99", cu.cuCtxCreate_v2(byref(c_void_p()), 0, 99))


def _tell_primary_state() -> None:
    flags, active = c_int(), c_int()
    code = cu.cuDevicePrimaryCtxGetState(0, byref(flags), byref(active))
    tell("primary state", code, value(flags.value), value(active.value))


@section
def without_context() -> None:
    cu.cuInit(0)
    x, p, s = c_int(), c_void_p(), c_size_t()
    tell("cuCtxGetCurrent", cu.cuCtxGetCurrent(byref(p)), value(p.value or 0))
    tell("cuCtxGetDevice", cu.cuCtxGetDevice(byref(x)))
    tell("cuCtxPopCurrent", cu.cuCtxPopCurrent_v2(byref(p)))
    tell("cuCtxPushCurrent null", cu.cuCtxPushCurrent_v2(None))
    tell("cuCtxSetCurrent null", cu.cuCtxSetCurrent(None))
    tell("cuCtxSynchronize", cu.cuCtxSynchronize())
    tell("cuMemAlloc", cu.cuMemAlloc_v2(byref(c_ulonglong()), c_size_t(4)))
    tell("cuMemFree 0", cu.cuMemFree_v2(c_ulonglong(0)))
    tell("cuMemFree 64", cu.cuMemFree_v2(c_ulonglong(64)))
    tell("cuMemGetInfo", cu.cuMemGetInfo_v2(byref(s), byref(s)))
    tell("cuMemAllocHost", cu.cuMemAllocHost_v2(byref(p), c_size_t(64)))
    tell("cuStreamCreate", cu.cuStreamCreate(byref(p), 0))
    tell("cuStreamSynchronize null", cu.cuStreamSynchronize(None))
    tell("cuStreamQuery null", cu.cuStreamQuery(None))
    tell("cuEventCreate", cu.cuEventCreate(byref(p), 0))
    tell("cuModuleLoadData", cu.cuModuleLoadData(byref(p), PTX))
    tell("cuLibraryLoadData", cu.cuLibraryLoadData(byref(p), PTX, None, None, 0, None, None, 0))
    tell("cuCtxGetLimit", cu.cuCtxGetLimit(byref(s), 0))
    tell("cuCtxGetFlags", cu.cuCtxGetFlags(byref(x)))
    tell("cuCtxGetApiVersion null", cu.cuCtxGetApiVersion(None, byref(x)), value(x.value))
    tell("cuPointerGetAttribute", cu.cuPointerGetAttribute(byref(x), 2, c_ulonglong(64)))
    tell("cuLaunchKernel null", launch(c_void_p()))


@section
def contexts() -> None:
    first = begin()
    x, p, q, n = c_int(), c_void_p(), c_void_p(), c_uint()
    tell("pop", cu.cuCtxPopCurrent_v2(byref(p)), str(p.value == first.value))
    tell("pop empty", cu.cuCtxPopCurrent_v2(byref(p)))
    tell("destroy primary", cu.cuCtxDestroy_v2(first))
    tell("create", cu.cuCtxCreate_v2(byref(q), 0, 0))
    tell("api version", cu.cuCtxGetApiVersion(q, byref(n)), value(n.value))
    tell("api version of primary", cu.cuCtxGetApiVersion(first, byref(n)), value(n.value))
    tell("flags", cu.cuCtxGetFlags(byref(n)), value(n.value))
    at = allocate()
    stream, event = c_void_p(), c_void_p()
    cu.cuStreamCreate(byref(stream), 0)
    cu.cuEventCreate(byref(event), 0)
    tell("destroy", cu.cuCtxDestroy_v2(q))
    tell("current after destroy", cu.cuCtxGetCurrent(byref(p)), value(p.value or 0))
    cu.cuCtxSetCurrent(first)
    tell("free of the dead context's memory", cu.cuMemFree_v2(at))
    tell("destroy null", cu.cuCtxDestroy_v2(None))
    tell("synchronize", cu.cuCtxSynchronize())
    tell("release", cu.cuDevicePrimaryCtxRelease_v2(0))
    tell("alloc after release", cu.cuMemAlloc_v2(byref(at), c_size_t(4)))
    tell("synchronize after release", cu.cuCtxSynchronize())
    tell("device after release", cu.cuCtxGetDevice(byref(x)))
    tell("release again", cu.cuDevicePrimaryCtxRelease_v2(0))
    tell("retain again", cu.cuDevicePrimaryCtxRetain(byref(p), 0), str(p.value == first.value))
    tell("alloc after retain", cu.cuMemAlloc_v2(byref(at), c_size_t(4)))


@section
def primary_reset() -> None:
    first = begin()
    x, y, p = c_int(), c_int(), c_void_p()
    old = allocate()
    module = load()
    function(module, b"nothing")
    stream, event = c_void_p(), c_void_p()
    cu.cuStreamCreate(byref(stream), 0)
    cu.cuEventCreate(byref(event), 0)
    tell("reset", cu.cuDevicePrimaryCtxReset_v2(0))
    tell("state", cu.cuDevicePrimaryCtxGetState(0, byref(x), byref(y)), value(y.value))
    tell("current is the same", cu.cuCtxGetCurrent(byref(p)), str(p.value == first.value))
    tell("device", cu.cuCtxGetDevice(byref(x)))
    tell("alloc", cu.cuMemAlloc_v2(byref(c_ulonglong()), c_size_t(4)))
    tell("synchronize", cu.cuCtxSynchronize())
    tell("free of the old", cu.cuMemFree_v2(old))
    tell("set current", cu.cuCtxSetCurrent(first))
    tell("release", cu.cuDevicePrimaryCtxRelease_v2(0))
    tell("retain", cu.cuDevicePrimaryCtxRetain(byref(p), 0), str(p.value == first.value))
    tell("state", cu.cuDevicePrimaryCtxGetState(0, byref(x), byref(y)), value(y.value))
    tell("alloc", cu.cuMemAlloc_v2(byref(c_ulonglong()), c_size_t(4)))
    tell("free of the old", cu.cuMemFree_v2(old))
    tell("unload the old module", cu.cuModuleUnload(module))
    tell("reset again", cu.cuDevicePrimaryCtxReset_v2(0))
    tell("set current", cu.cuCtxSetCurrent(first))
    tell("alloc", cu.cuMemAlloc_v2(byref(c_ulonglong()), c_size_t(4)))


@section
def limits() -> None:
    begin()
    s = c_size_t()
    for number in range(9):
        tell(f"limit {number}", cu.cuCtxGetLimit(byref(s), number), value(s.value))
    tell("limit 99", cu.cuCtxGetLimit(byref(s), 99))
    for question, number, size in (
        ("stack", STACK, 2048),
        ("stack 1000", STACK, 1000),
        ("stack huge", STACK, 1 << 40),
        ("printf 1", PRINTF, 1),
        ("printf 2 MiB", PRINTF, 2 << 20),
        ("heap 1", HEAP, 1),
        ("heap 16 MiB", HEAP, 16 << 20),
    ):
        codes = cu.cuCtxSetLimit(number, c_size_t(size)), cu.cuCtxGetLimit(byref(s), number)
        tell(f"set {question}", *codes, value(s.value))
    tell("set limit 99", cu.cuCtxSetLimit(99, c_size_t(1)))
    x = c_int()
    tell("cache config", cu.cuCtxGetCacheConfig(byref(x)), value(x.value))
    tell("set cache config 9", cu.cuCtxSetCacheConfig(9))
    tell("shared config", cu.cuCtxGetSharedMemConfig(byref(x)), value(x.value))

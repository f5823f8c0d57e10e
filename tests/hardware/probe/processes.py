"""What a forked child gets."""

from __future__ import annotations

import os
from ctypes import byref, c_char_p, c_int, c_size_t, c_ulonglong, c_void_p

from .driver import PTX, allocate, begin, cu, section, tell


@section
def forked() -> None:
    """What a child gets whose parent has used the driver."""
    begin()
    allocate()

    def child() -> None:
        x, p = c_int(), c_void_p()
        tell("cuInit", cu.cuInit(0))
        tell("cuDriverGetVersion", cu.cuDriverGetVersion(byref(x)))
        tell("cuDeviceGetCount", cu.cuDeviceGetCount(byref(x)))
        tell("cuDeviceGet", cu.cuDeviceGet(byref(x), 0))
        tell("cuDeviceGetAttribute", cu.cuDeviceGetAttribute(byref(x), 1, 0))
        tell("cuCtxGetCurrent", cu.cuCtxGetCurrent(byref(p)))
        tell("cuCtxSynchronize", cu.cuCtxSynchronize())
        tell("cuMemAlloc", cu.cuMemAlloc_v2(byref(c_ulonglong()), c_size_t(4)))
        tell("cuDevicePrimaryCtxRetain", cu.cuDevicePrimaryCtxRetain(byref(p), 0))
        tell("cuModuleLoadData", cu.cuModuleLoadData(byref(p), PTX))
        tell("cuPointerGetAttribute", cu.cuPointerGetAttribute(byref(x), 2, c_ulonglong(64)))
        tell("cuStreamCreate", cu.cuStreamCreate(byref(p), 0))
        tell("cuMemFree 0", cu.cuMemFree_v2(c_ulonglong(0)))
        tell("cuGetErrorName", cu.cuGetErrorName(3, byref(c_char_p())))
        tell("cuGetExportTable nonsense", cu.cuGetExportTable(byref(p), b"0123456789abcdef"))
        tell("cuDevicePrimaryCtxGetState", cu.cuDevicePrimaryCtxGetState(0, byref(x), byref(x)))

    pid = os.fork()
    if pid == 0:
        child()
        os._exit(0)
    os.waitpid(pid, 0)
    tell("the parent goes on", cu.cuCtxSynchronize())


@section
def forked_after_init() -> None:
    """What a child gets whose parent has called cuInit and nothing else."""
    cu.cuInit(0)
    pid = os.fork()
    if pid == 0:
        x, p = c_int(), c_void_p()
        tell("cuInit", cu.cuInit(0))
        tell("cuDeviceGetCount", cu.cuDeviceGetCount(byref(x)))
        tell("cuDevicePrimaryCtxRetain", cu.cuDevicePrimaryCtxRetain(byref(p), 0))
        os._exit(0)
    os.waitpid(pid, 0)


@section
def forked_before_init() -> None:
    cu.cuDriverGetVersion(byref(c_int()))
    pid = os.fork()
    if pid == 0:
        tell("cuInit", cu.cuInit(0))
        begin()
        tell("cuMemAlloc", cu.cuMemAlloc_v2(byref(c_ulonglong()), c_size_t(4)))
        os._exit(0)
    os.waitpid(pid, 0)

"""What a context answers after a fault of the device."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import byref, c_int, c_size_t, c_uint, c_ulonglong, c_void_p

from .driver import PTX, allocate, begin, cu, function, launch, load, section, tell


def _faulty(break_it: Callable[[c_void_p, c_ulonglong], int]) -> None:
    first = begin()
    module = load()
    at, host, p, s, x = allocate(), ctypes.create_string_buffer(64), c_void_p(), c_size_t(), c_int()
    stream, event, early = c_void_p(), c_void_p(), c_void_p()
    cu.cuStreamCreate(byref(stream), 1)
    cu.cuEventCreate(byref(event), 0)
    cu.cuEventCreate(byref(early), 0)
    cu.cuEventRecord(early, stream)
    cu.cuCtxSynchronize()
    tell("launch", break_it(module, at))
    tell("synchronize", cu.cuCtxSynchronize())
    tell("synchronize again", cu.cuCtxSynchronize())
    tell("stream synchronize", cu.cuStreamSynchronize(stream))
    tell("stream query", cu.cuStreamQuery(stream))
    tell("early event query", cu.cuEventQuery(early))
    tell("event record", cu.cuEventRecord(event, stream))
    tell("alloc", cu.cuMemAlloc_v2(byref(c_ulonglong()), c_size_t(4)))
    tell("copy", cu.cuMemcpyDtoH_v2(host, at, c_size_t(4)))
    tell("memset", cu.cuMemsetD8_v2(at, 1, c_size_t(4)))
    tell("launch after", launch(function_or_null(module, b"nothing")))
    tell("get function", cu.cuModuleGetFunction(byref(p), module, b"nothing"))
    tell("load", cu.cuModuleLoadData(byref(p), PTX))
    tell("info", cu.cuMemGetInfo_v2(byref(s), byref(s)))
    tell("create stream", cu.cuStreamCreate(byref(p), 0))
    tell("create event", cu.cuEventCreate(byref(p), 0))
    tell("host alloc", cu.cuMemAllocHost_v2(byref(p), c_size_t(64)))
    tell("get current", cu.cuCtxGetCurrent(byref(p)))
    tell("get device", cu.cuCtxGetDevice(byref(x)))
    tell("limit", cu.cuCtxGetLimit(byref(s), 0))
    tell("pointer attribute", cu.cuPointerGetAttribute(byref(x), 2, at))
    tell("device attribute", cu.cuDeviceGetAttribute(byref(x), 1, 0))
    tell("destroy event", cu.cuEventDestroy_v2(event))
    tell("destroy stream", cu.cuStreamDestroy_v2(stream))
    tell("free", cu.cuMemFree_v2(at))
    tell("unload", cu.cuModuleUnload(module))
    tell("create context", cu.cuCtxCreate_v2(byref(p), 0, 0))
    cu.cuCtxSetCurrent(first)
    tell("reset", cu.cuDevicePrimaryCtxReset_v2(0))
    tell("retain", cu.cuDevicePrimaryCtxRetain(byref(p), 0), str(p.value == first.value))
    cu.cuCtxSetCurrent(p)
    tell("alloc", cu.cuMemAlloc_v2(byref(at), c_size_t(4)))
    tell("synchronize at last", cu.cuCtxSynchronize())


def function_or_null(module: c_void_p, name: bytes) -> c_void_p:
    found = c_void_p()
    cu.cuModuleGetFunction(byref(found), module, name)
    return found


@section
def fault_address() -> None:
    _faulty(lambda module, at: launch(function(module, b"store"), c_ulonglong(0x10), c_uint(1)))


@section
def fault_misaligned() -> None:
    _faulty(lambda module, at: launch(function(module, b"load_misaligned"), at))


@section
def fault_trap() -> None:
    _faulty(lambda module, at: launch(function(module, b"trapping")))

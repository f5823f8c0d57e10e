"""Device memory, host memory and what is known of pointers."""

from __future__ import annotations

import ctypes
import mmap
from ctypes import byref, c_int, c_size_t, c_uint, c_ulonglong, c_void_p

from .driver import allocate, begin, cu, section, tell, value


@section
def memory() -> None:
    begin()
    x, _p, s, _t = c_int(), c_void_p(), c_size_t(), c_size_t()
    at = allocate()
    host = ctypes.create_string_buffer(4096)
    tell("alloc 0", cu.cuMemAlloc_v2(byref(c_ulonglong()), c_size_t(0)))
    tell("alloc null", cu.cuMemAlloc_v2(None, c_size_t(4)))
    tell("alloc 1 PiB", cu.cuMemAlloc_v2(byref(c_ulonglong()), c_size_t(1 << 50)))
    tell("alloc all", cu.cuMemAlloc_v2(byref(c_ulonglong()), c_size_t((1 << 64) - 1)))
    tell("free 0", cu.cuMemFree_v2(c_ulonglong(0)))
    tell("free inside", cu.cuMemFree_v2(c_ulonglong(at.value + 256)))
    tell("free nonsense", cu.cuMemFree_v2(c_ulonglong(0x1234)))
    tell("free host", cu.cuMemFree_v2(c_ulonglong(ctypes.addressof(host))))
    tell("to device 0 bytes", cu.cuMemcpyHtoD_v2(at, host, c_size_t(0)))
    tell("to device 0 bytes nowhere", cu.cuMemcpyHtoD_v2(c_ulonglong(0), host, c_size_t(0)))
    tell("to device null source", cu.cuMemcpyHtoD_v2(at, None, c_size_t(4)))
    tell("to device beyond", cu.cuMemcpyHtoD_v2(at, host, c_size_t(4096)))
    tell("to nonsense", cu.cuMemcpyHtoD_v2(c_ulonglong(0x1234), host, c_size_t(4)))
    tell("to host null", cu.cuMemcpyDtoH_v2(None, at, c_size_t(4)))
    tell("to host from nonsense", cu.cuMemcpyDtoH_v2(host, c_ulonglong(0x1234), c_size_t(4)))
    tell("dtod overlapping", cu.cuMemcpyDtoD_v2(c_ulonglong(at.value + 1), at, c_size_t(64)))
    tell("dtod nonsense", cu.cuMemcpyDtoD_v2(at, c_ulonglong(0x1234), c_size_t(4)))
    tell(
        "unified both host",
        cu.cuMemcpy(
            c_ulonglong(ctypes.addressof(host)),
            c_ulonglong(ctypes.addressof(host) + 64),
            c_size_t(4),
        ),
    )
    tell("async nonsense", cu.cuMemcpyHtoDAsync_v2(c_ulonglong(0x1234), host, c_size_t(4), None))
    tell("memset 0 bytes", cu.cuMemsetD8_v2(at, 1, c_size_t(0)))
    tell("memset beyond", cu.cuMemsetD8_v2(at, 1, c_size_t(1 << 40)))
    tell("memset nonsense", cu.cuMemsetD8_v2(c_ulonglong(0x1234), 1, c_size_t(4)))
    tell("memset misaligned", cu.cuMemsetD32_v2(c_ulonglong(at.value + 1), 1, c_size_t(1)))
    tell(
        "memset 2d pitch too small",
        cu.cuMemsetD2D8_v2(at, c_size_t(4), 1, c_size_t(8), c_size_t(2)),
    )
    base = c_ulonglong()
    tell(
        "range inside",
        cu.cuMemGetAddressRange_v2(byref(base), byref(s), c_ulonglong(at.value + 100)),
        str(base.value == at.value),
        value(s.value),
    )
    tell("range nonsense", cu.cuMemGetAddressRange_v2(byref(base), byref(s), c_ulonglong(0x1234)))
    tell(
        "range past the end",
        cu.cuMemGetAddressRange_v2(byref(base), byref(s), c_ulonglong(at.value + 1024)),
    )
    tell("pitch 0", cu.cuMemAllocPitch_v2(byref(base), byref(s), c_size_t(0), c_size_t(4), 4))
    tell(
        "pitch element 3",
        cu.cuMemAllocPitch_v2(byref(base), byref(s), c_size_t(100), c_size_t(4), 3),
    )
    tell(
        "pitch",
        cu.cuMemAllocPitch_v2(byref(base), byref(s), c_size_t(100), c_size_t(4), 4),
        value(s.value),
    )
    tell(
        "pitch 513",
        cu.cuMemAllocPitch_v2(byref(base), byref(s), c_size_t(513), c_size_t(4), 4),
        value(s.value),
    )
    tell("info null", cu.cuMemGetInfo_v2(None, None))
    tell("alignment of allocations", value(allocate(1).value % 512))
    for number in (1, 2, 3, 4, 5, 7, 10, 11, 12, 13, 14, 15, 17, 18, 19, 20):
        out = (c_ulonglong * 8)()
        code = cu.cuPointerGetAttribute(out, number, c_ulonglong(at.value + 4))
        shown = value(out[0]) if number in (2, 10, 13, 14, 15, 17, 18, 20) else ""
        tell(f"pointer attribute {number} of device memory", code, shown)
        code = cu.cuPointerGetAttribute(out, number, c_ulonglong(ctypes.addressof(host)))
        tell(f"pointer attribute {number} of pageable memory", code)
    tell("pointer attribute of null", cu.cuPointerGetAttribute(byref(x), 2, c_ulonglong(0)))
    tell("free", cu.cuMemFree_v2(at))
    tell("free twice", cu.cuMemFree_v2(at))
    tell("copy to freed", cu.cuMemcpyHtoD_v2(at, host, c_size_t(4)))


@section
def host_memory() -> None:
    begin()
    p, q, n = c_void_p(), c_ulonglong(), c_uint()
    for flags in (0, 1, 2, 3, 4, 8):
        code = cu.cuMemHostAlloc(byref(p), c_size_t(4096), flags)
        tell(f"host alloc flags {flags}", code)
        if code == 0:
            tell(f"flags of {flags}", cu.cuMemHostGetFlags(byref(n), p), value(n.value))
            code = cu.cuMemHostGetDevicePointer_v2(byref(q), p, 0)
            tell(f"device pointer of {flags}", code, str(q.value == p.value))
            for number in (1, 2, 3, 4, 10, 11, 13, 14, 15, 17):
                out = (c_ulonglong * 8)()
                tell(
                    f"pointer attribute {number} of flags {flags}",
                    cu.cuPointerGetAttribute(out, number, c_ulonglong(p.value)),
                    value(out[0]) if number in (2, 14, 15, 17) else "",
                )
            tell(f"free of {flags}", cu.cuMemFreeHost(p))
    tell("alloc host 0", cu.cuMemHostAlloc(byref(p), c_size_t(0), 0))
    tell("cuMemAllocHost", cu.cuMemAllocHost_v2(byref(p), c_size_t(64)))
    tell("its flags", cu.cuMemHostGetFlags(byref(n), p), value(n.value))
    tell("flags inside", cu.cuMemHostGetFlags(byref(n), c_void_p(p.value + 8)), value(n.value))
    tell("free inside", cu.cuMemFreeHost(c_void_p(p.value + 8)))
    tell("free as device memory", cu.cuMemFree_v2(c_ulonglong(p.value)))
    tell("free", cu.cuMemFreeHost(p))
    tell("free twice", cu.cuMemFreeHost(p))
    tell("free null", cu.cuMemFreeHost(None))
    area = mmap.mmap(-1, 1 << 16)
    base = ctypes.addressof(ctypes.c_char.from_buffer(area))
    tell("register", cu.cuMemHostRegister_v2(c_void_p(base), c_size_t(8192), 0))
    tell("its flags", cu.cuMemHostGetFlags(byref(n), c_void_p(base)), value(n.value))
    tell("register again", cu.cuMemHostRegister_v2(c_void_p(base), c_size_t(8192), 0))
    tell("register overlapping", cu.cuMemHostRegister_v2(c_void_p(base + 4096), c_size_t(8192), 0))
    tell("unregister inside", cu.cuMemHostUnregister(c_void_p(base + 4096)))
    tell("unregister", cu.cuMemHostUnregister(c_void_p(base)))
    tell("unregister twice", cu.cuMemHostUnregister(c_void_p(base)))
    tell("register 0 bytes", cu.cuMemHostRegister_v2(c_void_p(base), c_size_t(0), 0))
    tell("register null", cu.cuMemHostRegister_v2(None, c_size_t(4096), 0))
    tell("register unaligned", cu.cuMemHostRegister_v2(c_void_p(base + 100), c_size_t(1000), 0))
    tell("unregister unaligned", cu.cuMemHostUnregister(c_void_p(base + 100)))
    tell("register unmapped", cu.cuMemHostRegister_v2(c_void_p(1 << 30), c_size_t(4096), 0))
    tell("register flags 64", cu.cuMemHostRegister_v2(c_void_p(base), c_size_t(4096), 64))


@section
def managed() -> None:
    begin()
    at, x = c_ulonglong(), c_int()
    for attribute in (19, 83, 88, 89, 100, 41, 102, 115, 116):
        tell(
            f"device attribute {attribute}",
            cu.cuDeviceGetAttribute(byref(x), attribute, 0),
            value(x.value),
        )
    tell("alloc flags 0", cu.cuMemAllocManaged(byref(at), c_size_t(4096), 0))
    tell("alloc 0", cu.cuMemAllocManaged(byref(at), c_size_t(0), 1))
    tell("alloc", cu.cuMemAllocManaged(byref(at), c_size_t(4096), 1))
    for number in (1, 2, 3, 4, 13, 14, 15):
        out = (c_ulonglong * 8)()
        tell(
            f"pointer attribute {number}",
            cu.cuPointerGetAttribute(out, number, at),
            value(out[0]) if number in (2, 14, 15) else "",
        )

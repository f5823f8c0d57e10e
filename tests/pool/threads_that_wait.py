"""One thread waits for a kernel that ends only when another thread has written a number; meanwhile
others ask, copy and make things. Prints what each thread had done, in this order.

A call that stood in line behind the wait would never return, and so the number never be written.
"""

from __future__ import annotations

import ctypes
import threading

OTHERS = 4
ROUNDS = 25
BYTES = 1 << 16
PTX = b"""
.version 7.0
.target sm_70
.address_size 64
.visible .entry until_written(.param .u64 place)
{
    .reg .b64 %at;
    .reg .b32 %value;
    .reg .pred %zero;
    ld.param.u64 %at, [place];
again:
    ld.volatile.global.u32 %value, [%at];
    setp.eq.u32 %zero, %value, 0;
    @%zero bra again;
    ret;
}
\0"""
NON_BLOCKING = 1

driver = ctypes.CDLL("libcuda.so.1")
done: list[str] = []


def must(name: str, *arguments: object) -> None:
    code = getattr(driver, name)(*arguments)
    if code != 0:
        raise RuntimeError(f"{name} failed with {code}")


def made(name: str, kind: type, *arguments: object):
    """What a call stores at its first argument."""
    value = kind()
    must(name, ctypes.byref(value), *arguments)
    return value


must("cuInit", 0)
context = made("cuDevicePrimaryCtxRetain", ctypes.c_void_p, 0)
must("cuCtxSetCurrent", context)
module = made("cuModuleLoadData", ctypes.c_void_p, PTX)
function = made("cuModuleGetFunction", ctypes.c_void_p, module, b"until_written")
place = made("cuMemAlloc_v2", ctypes.c_uint64, ctypes.c_size_t(4))
must("cuMemsetD32_v2", place, 0, ctypes.c_size_t(1))
must("cuCtxSynchronize")
launched = threading.Event()


def wait_for_kernel() -> None:
    must("cuCtxSetCurrent", context)
    stream = made("cuStreamCreate", ctypes.c_void_p, NON_BLOCKING)
    argument = ctypes.cast(ctypes.byref(place), ctypes.c_void_p)
    parameters = (ctypes.c_void_p * 1)(argument)
    must("cuLaunchKernel", function, 1, 1, 1, 1, 1, 1, 0, stream, parameters, None)
    launched.set()
    must("cuStreamSynchronize", stream)
    done.append("kernel")


def work_beside() -> None:
    must("cuCtxSetCurrent", context)
    stream = made("cuStreamCreate", ctypes.c_void_p, NON_BLOCKING)
    memory = made("cuMemAlloc_v2", ctypes.c_uint64, ctypes.c_size_t(BYTES))
    sent, got = bytes(range(256)) * (BYTES // 256), ctypes.create_string_buffer(BYTES)
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    for _ in range(ROUNDS):
        must("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        must("cuMemcpyHtoDAsync_v2", memory, sent, ctypes.c_size_t(BYTES), stream)
        must("cuMemcpyDtoHAsync_v2", got, memory, ctypes.c_size_t(BYTES), stream)
        must("cuStreamSynchronize", stream)
        assert got.raw == sent
    done.append("others")


waiting = threading.Thread(target=wait_for_kernel)
others = [threading.Thread(target=work_beside) for _ in range(OTHERS)]
waiting.start()
launched.wait()
for thread in others:
    thread.start()
for thread in others:
    thread.join()
stream = made("cuStreamCreate", ctypes.c_void_p, NON_BLOCKING)
done.append("written")
must("cuMemcpyHtoDAsync_v2", place, ctypes.byref(ctypes.c_uint32(1)), ctypes.c_size_t(4), stream)
waiting.join()
print(" ".join(done))
